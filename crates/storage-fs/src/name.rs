//! From a key to the places where its value can lie, and back.
//!
//! A key that is a path of ordinary names lies under that path: its *natural* place. Every key also has a place in the
//! *annex*, for values that cannot lie naturally: the key in hexadecimal, cut into directories of 64 key bytes each, the last
//! part with the suffix `.v`. Hexadecimal keeps the order of keys, and prefixes of keys are prefixes of paths.

/// The directory below the root that belongs to this crate.
pub(crate) const RESERVED: &str = ".storage";
/// Where the locks of keys lie.
pub(crate) const LOCKS: &str = ".storage/locks";
/// Where values lie on their way.
pub(crate) const STAGING: &str = ".storage/staging";
/// Where values lie that have no natural place, or not at the moment.
pub(crate) const ANNEX: &str = ".storage/annex";

/// Key bytes per directory of the annex. A name of 130 bytes fits every filesystem in use.
const CHUNK: usize = 64;
const SUFFIX: &str = ".v";

/// Which names the filesystem keeps apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming {
    /// The longest file name, in bytes.
    pub(crate) max_segment: usize,
    /// Whether it takes some names that differ for the same (case, Unicode normalisation). Then only keys of lowercase ASCII
    /// lie naturally, which cannot be confused.
    pub(crate) folds: bool,
}

impl Naming {
    /// The path of the natural place, if there is one.
    pub(crate) fn natural<'k>(&self, key: &'k str) -> Option<&'k str> {
        let natural = key.split('/').all(|segment| self.is_segment(segment)) && key.split('/').next() != Some(RESERVED);
        natural.then_some(key)
    }

    /// Whether a name can be a segment of a natural place.
    pub(crate) fn is_segment(&self, name: &str) -> bool {
        let confusing = |b: u8| b.is_ascii_uppercase() || !b.is_ascii();
        match name {
            "" | "." | ".." => false,
            _ if name.len() > self.max_segment => false,
            _ if self.folds && name.bytes().any(confusing) => false,
            _ => !name.bytes().any(|b| b.is_ascii_control()),
        }
    }
}

/// The path of a key's place in the annex.
pub(crate) fn annex(key: &str) -> String {
    let mut path = ANNEX.to_owned();
    for chunk in key.as_bytes().chunks(CHUNK) {
        path.push('/');
        push_hex(&mut path, chunk);
    }
    path + SUFFIX
}

/// The directory of the annex that holds all keys with this prefix, and the part of the prefix that it stands for. A key that
/// ends with a whole chunk is a file beside the directory of that chunk, not in it.
pub(crate) fn annex_directory(prefix: &[u8]) -> (String, &[u8]) {
    let whole = prefix.len().saturating_sub(1) / CHUNK * CHUNK;
    let mut path = ANNEX.to_owned();
    for chunk in prefix[..whole].chunks(CHUNK) {
        path.push('/');
        push_hex(&mut path, chunk);
    }
    (path, &prefix[..whole])
}

/// The part of a key that a directory of the annex stands for.
pub(crate) fn annex_chunk(name: &str) -> Option<Vec<u8>> {
    decode(name).filter(|chunk| chunk.len() == CHUNK)
}

/// The end of a key that a file of the annex stands for.
pub(crate) fn annex_end(name: &str) -> Option<Vec<u8>> {
    decode(name.strip_suffix(SUFFIX)?).filter(|end| (1..=CHUNK).contains(&end.len()))
}

/// Directory and name of a path. The root is the empty path.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Which of 256 locks guards a key: FNV-1a, because every process and release must agree.
pub(crate) fn stripe(key: &str) -> u8 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash.to_le_bytes().into_iter().fold(0, |a, b| a ^ b)
}

fn push_hex(path: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            path.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}

fn decode(hex: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Naming = Naming { max_segment: 255, folds: false };

    #[test]
    fn only_paths_of_ordinary_names_are_natural() {
        for key in ["a", "a/b.txt", "x/.storage", "Ä b", "...", r"a\b", "%2F"] {
            assert!(PLAIN.natural(key).is_some(), "{key}");
        }
        let long = "x".repeat(256);
        for key in ["", ".", "a/../b", "a//b", "/a", "a/", "a\nb", ".storage/x", &long] {
            assert!(PLAIN.natural(key).is_none(), "{key}");
        }
        let folds = Naming { folds: true, ..PLAIN };
        assert!(folds.natural("a/b-1.txt").is_some());
        assert!(folds.natural("A").is_none() && folds.natural("ä").is_none());
    }

    #[test]
    fn the_annex_keeps_order_and_decodes() {
        let x = |n| "x".repeat(n);
        let mut keys: Vec<String> = (60..70).chain(126..131).map(x).collect();
        keys.extend(["a/", "a//b", "\u{1}", "ü/"].map(String::from));
        keys.extend((60..70).map(|n| x(n) + "a"));
        keys.sort();
        // The walk sorts directories with a `/` behind their name; here every path has its directories' `/` already.
        let paths: Vec<String> = keys.iter().map(|key| annex(key)).collect();
        assert!(paths.is_sorted(), "{paths:#?}");
        for (key, path) in keys.iter().zip(&paths) {
            let mut decoded = Vec::new();
            let (directory, name) = split(path);
            for chunk in directory[ANNEX.len()..].split('/').skip(1) {
                decoded.extend(annex_chunk(chunk).unwrap());
            }
            decoded.extend(annex_end(name).unwrap());
            assert_eq!(decoded, key.as_bytes());
            assert!(path.len() < 4096 && path.split('/').all(|name| name.len() <= 130));
        }
    }

    #[test]
    fn a_directory_of_the_annex_holds_a_prefix() {
        let key = "k".repeat(1024);
        for end in 0..=key.len() {
            let (directory, covered) = annex_directory(&key.as_bytes()[..end]);
            let longest = [&key[..end.max(1)], &key].map(|key| annex(key).starts_with(&format!("{directory}/")));
            assert_eq!(longest, [true, true], "{end}");
            assert!(covered.len() < end.max(1) && covered.len() + CHUNK >= end, "{end}");
        }
    }
}
