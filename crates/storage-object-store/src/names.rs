//! Where a key lies: under its own name, or in the annex.
//!
//! A key that any flat store can hold as it is lies under itself, below the configured prefix. Every other key, and on a
//! hierarchical store every key, lies in the annex `.storage/keys/` as base32hex (RFC 4648 section 7, lower case, unpadded), cut
//! into segments of 200 characters, each but the last with a `-` behind it:
//!
//! - base32hex keeps the order of bytes, and takes 1.6 bytes for one: a key of 512 bytes and a prefix fit into the 1,024 bytes
//!   that S3 and others allow for a name, which hexadecimal digits would not;
//! - no object's name is the directory of another, since only directories end in `-`;
//! - a name of 200 characters leaves room for what a filesystem appends to it while it is written.

use data_encoding::BASE32_DNSSEC as BASE32HEX;
use object_store::path::{DELIMITER, Path, PathPart};
use storage_core::{Error, ErrorKind, Key, Result};

use crate::Naming;

/// The one directory below the prefix that no key is placed in by its own name.
const RESERVED: &str = ".storage";
/// The directory of the annex in it.
const ANNEX: &str = "keys";
/// The directory of the objects that exist only while a store is probed.
const PROBES: &str = "probe";
/// How no object of Google's may be named.
const CHALLENGES: &str = ".well-known/acme-challenge/";
/// The one name that Amazon keeps for itself, where the bucket stands in the host.
const SOAP: &str = "soap";
/// The longest segment of an encoded name, and with it the longest segment that a key may have to lie under itself.
const SEGMENT: usize = 200;
/// The most segments of a name, prefix included, that Azure takes, less some for its own name of the container.
const DEEPEST: usize = 250;
/// Follows every encoded segment but the last.
const MORE: &str = "-";

/// The names of one namespace.
#[derive(Debug)]
pub(crate) struct Names {
    root: Path,
    naming: Naming,
}

impl Names {
    /// The namespace below a prefix.
    pub(crate) fn new(prefix: &str, naming: Naming) -> Result<Self> {
        let prefix = prefix.strip_suffix(DELIMITER).unwrap_or(prefix);
        let root = match prefix {
            "" => Some(Path::ROOT),
            text => plain(text),
        };
        let root = root.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "the prefix must be names with one `/` between them, without control characters, `\\`, names that end in `.`, \
                 names over 200 bytes, and not begin with `.storage`",
            )
        })?;
        Ok(Self { root, naming })
    }

    /// The longest key whose name has at most `name_limit` bytes wherever it lies.
    pub(crate) fn key_limit(&self, name_limit: usize) -> Result<usize> {
        let annex = self.annex().as_ref().len() + DELIMITER.len();
        let name = |key: usize| {
            let encoded = BASE32HEX.encode_len(key);
            annex + encoded + encoded.saturating_sub(1) / SEGMENT * (MORE.len() + DELIMITER.len())
        };
        (Key::MIN_LIMIT..=Key::MAX_LEN).rev().find(|key| name(*key) <= name_limit).ok_or_else(|| {
            let over = name(Key::MIN_LIMIT) - name_limit;
            Error::new(
                ErrorKind::Config,
                format!("the prefix leaves no room for keys of 512 bytes; shorten it by {over} bytes"),
            )
        })
    }

    /// Where a key lies.
    pub(crate) fn place(&self, key: &Key) -> Path {
        let kept = |place: &Path| place.as_ref() == SOAP || place.as_ref().starts_with(CHALLENGES);
        let natural = self.natural(key.as_str()).filter(|place| !kept(place));
        natural.unwrap_or_else(|| self.encoded(key.as_str().as_bytes()))
    }

    /// The key that lies here; `None` for the names that no key is placed under.
    pub(crate) fn key(&self, place: &Path) -> Option<Key> {
        let name = self.below(place)?;
        let key = match place.prefix_match(&self.annex()) {
            Some(segments) => decode(segments)?,
            None => Key::parse(name).ok()?,
        };
        (self.place(&key) == *place).then_some(key)
    }

    /// The keys below this directory start with this text; `None` where no key's own name can lie.
    pub(crate) fn common_prefix(&self, directory: &Path) -> Option<String> {
        let name = self.below(directory)?;
        let natural = self.natural(name)? == *directory;
        natural.then(|| format!("{name}{DELIMITER}"))
    }

    /// Whether something here belongs to this crate and is not a key.
    pub(crate) fn is_reserved(&self, place: &Path) -> bool {
        place.prefix_matches(&self.reserved())
    }

    /// The directory of all keys with this prefix that lie under themselves; `None` if there can be no such keys.
    pub(crate) fn directory(&self, prefix: &str) -> Option<Path> {
        match prefix.rsplit_once(DELIMITER) {
            _ if self.naming == Naming::Hierarchical => None,
            None => Some(self.root.clone()),
            Some((directory, _)) => self.natural(directory),
        }
    }

    /// How the names of all keys with this prefix that lie under themselves begin, exactly; `None` if there can be none.
    pub(crate) fn literal(&self, prefix: &str) -> Option<String> {
        let root = self.root.as_ref();
        let none = prefix.contains(awkward) || !self.is_ordered(prefix);
        (!none).then(|| if root.is_empty() { prefix.to_owned() } else { format!("{root}{DELIMITER}{prefix}") })
    }

    /// The directory of the annex.
    pub(crate) fn annex(&self) -> Path {
        self.reserved().join(ANNEX)
    }

    /// A name for a probe.
    pub(crate) fn probe(&self, token: &str) -> Path {
        self.reserved().join(PROBES).join(token)
    }

    /// A name at or before that of every key behind `text`, among the keys that lie under themselves.
    pub(crate) fn before(&self, text: &str) -> Option<Path> {
        let end = text.char_indices().map(|(at, c)| at + c.len_utf8());
        end.rev().find_map(|end| self.natural(&text[..end]))
    }

    /// The same in the annex, exactly. The bytes need not be UTF-8.
    pub(crate) fn before_encoded(&self, bytes: &[u8]) -> Path {
        self.encoded(bytes)
    }

    fn natural(&self, name: &str) -> Option<Path> {
        if self.naming == Naming::Hierarchical {
            return None;
        }
        let name = plain(name).filter(|name| self.is_ordered(name.as_ref()))?;
        let place = match self.root.is_root() {
            true => name,
            false => Path::parse(format!("{}{DELIMITER}{name}", self.root)).ok()?,
        };
        let deep = self.naming == Naming::FlatUtf16 && place.parts().count() > DEEPEST;
        (!deep).then_some(place)
    }

    /// Whether the store has this text where the order of bytes has it. UTF-16 writes characters beyond U+FFFF by surrogates, which
    /// are less than those from U+E000 to U+FFFF.
    fn is_ordered(&self, text: &str) -> bool {
        self.naming != Naming::FlatUtf16 || text.chars().all(|c| u32::from(c) <= 0xffff)
    }

    fn encoded(&self, bytes: &[u8]) -> Path {
        let text = BASE32HEX.encode(bytes);
        let mut place = self.annex();
        let mut rest = text.as_str();
        while rest.len() > SEGMENT {
            let (segment, behind) = rest.split_at(SEGMENT);
            place = place.join(format!("{segment}{MORE}"));
            rest = behind;
        }
        place.join(rest)
    }

    fn reserved(&self) -> Path {
        self.root.clone().join(RESERVED)
    }

    fn below<'a>(&self, place: &'a Path) -> Option<&'a str> {
        if self.root.is_root() {
            return Some(place.as_ref());
        }
        let rest = place.as_ref().strip_prefix(self.root.as_ref())?;
        rest.strip_prefix(DELIMITER)
    }
}

/// The path that is this text as it is, if every flat store takes it: Azure refuses `.` at the end of a name and turns `\` into
/// `/`, and the XML of S3's listings cannot express control characters and U+FFFE and U+FFFF.
fn plain(text: &str) -> Option<Path> {
    let mut segments = text.split(DELIMITER);
    let reserved = segments.next() == Some(RESERVED);
    let awkward = |segment: &str| segment.len() > SEGMENT || segment.ends_with('.') || segment.contains(awkward);
    if reserved || text.split(DELIMITER).any(awkward) {
        return None;
    }
    Path::parse(text).ok().filter(|path| path.as_ref() == text)
}

fn awkward(c: char) -> bool {
    c.is_control() || matches!(c, '\\' | '\u{fffe}' | '\u{ffff}')
}

fn decode<'a>(segments: impl Iterator<Item = PathPart<'a>>) -> Option<Key> {
    let mut text = String::new();
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        text += match segments.peek() {
            Some(_) => segment.as_ref().strip_suffix(MORE)?,
            None => segment.as_ref(),
        };
    }
    let bytes = BASE32HEX.decode(text.as_bytes()).ok()?;
    Key::parse(&String::from_utf8(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys from an alphabet that meets every rule: separators, dots, control characters, long segments, reserved words.
    fn keys() -> Vec<Key> {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let words = [
            "a", "b", "/", "/", ".", "..", "\\", "\u{1}", "é", "\u{ff5e}", "😀", "%2F", "#1", "~", "-", " ",
            ".storage", "keys",
        ];
        let long = ["x".repeat(199), "x".repeat(200), "x".repeat(201), "y/".repeat(260)];
        let mut keys: Vec<Key> = (0..4000)
            .filter_map(|_| {
                let mut key = String::new();
                for _ in 0..rng.usize(1..7) {
                    key += words[rng.usize(..words.len())];
                }
                if rng.u8(..) < 20 {
                    key += &long[rng.usize(..long.len())];
                    key += words[rng.usize(..words.len())];
                }
                Key::parse(&key).ok()
            })
            .collect();
        keys.extend((1..=512).filter_map(|n| Key::parse(&"z".repeat(n)).ok()));
        keys.sort();
        keys.dedup();
        keys
    }

    fn namespaces() -> [Names; 6] {
        [
            ("", Naming::Flat),
            ("", Naming::Hierarchical),
            ("p~/q", Naming::Flat),
            ("p", Naming::Hierarchical),
            ("", Naming::FlatUtf16),
            ("p/q", Naming::FlatUtf16),
        ]
        .map(|(prefix, naming)| Names::new(prefix, naming).unwrap())
    }

    #[test]
    fn every_key_has_a_place_of_its_own_and_back() {
        for names in namespaces() {
            let keys = keys();
            let places: std::collections::BTreeSet<Path> = keys
                .iter()
                .map(|key| {
                    let place = names.place(key);
                    assert_eq!(Path::parse(&place).unwrap(), place, "{key:?}");
                    assert_eq!(names.key(&place).as_ref(), Some(key), "at {place}");
                    place
                })
                .collect();
            assert_eq!(places.len(), keys.len());
        }
    }

    #[test]
    fn both_places_keep_the_order_of_keys() {
        for names in namespaces() {
            let (annexed, natural): (Vec<Path>, Vec<Path>) =
                keys().iter().map(|key| names.place(key)).partition(|place| names.is_reserved(place));
            assert!(annexed.is_sorted() && natural.is_sorted());
            assert!(natural.is_empty() == (names.naming == Naming::Hierarchical));
            if names.naming == Naming::FlatUtf16 {
                let units = natural.iter().map(|place| place.as_ref().encode_utf16().collect::<Vec<_>>());
                assert!(units.is_sorted() && natural.iter().all(|place| place.parts().count() <= DEEPEST));
            }
        }
    }

    #[test]
    fn no_encoded_name_is_the_directory_of_another() {
        let names = Names::new("", Naming::Hierarchical).unwrap();
        let places: std::collections::BTreeSet<Path> = keys().iter().map(|key| names.place(key)).collect();
        for place in &places {
            assert!(place.parts().all(|part| part.as_ref().len() <= SEGMENT + MORE.len()));
            let mut above = place.parent();
            while let Some(directory) = above {
                assert!(!places.contains(&directory), "{directory} above {place}");
                above = directory.parent();
            }
        }
    }

    #[test]
    fn a_listing_may_begin_at_the_name_before() {
        for names in namespaces() {
            let keys = keys();
            for pair in keys.windows(2) {
                let (start, behind) = (pair[0].as_str(), &pair[1]);
                let place = names.place(behind);
                if names.is_reserved(&place) {
                    assert!(names.before_encoded(start.as_bytes()) < place);
                } else {
                    assert!(names.before(start).is_none_or(|before| before < place));
                    assert!(place.prefix_matches(&names.directory(behind.as_str()).unwrap()));
                }
            }
        }
    }

    #[test]
    fn the_key_limit_is_what_the_longest_name_leaves() {
        for prefix in ["".to_owned(), "p/q".to_owned(), "x".repeat(181)] {
            let names = Names::new(&prefix, Naming::Hierarchical).unwrap();
            let limit = names.key_limit(1024).unwrap();
            let longest = names.place(&Key::parse(&"\u{7f}".repeat(limit)).unwrap());
            assert!(limit >= 512 && (1019..=1024).contains(&longest.as_ref().len()), "{limit}");
        }
        let names = Names::new(&"x".repeat(182), Naming::Flat).unwrap();
        assert_eq!(names.key_limit(1024).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn no_key_lies_where_a_cloud_refuses_objects() {
        let names = Names::new("", Naming::Flat).unwrap();
        for (key, annexed) in [
            (".well-known/acme-challenge/t", true),
            (".well-known/acme-challenge", false),
            ("a/.well-known/acme-challenge/t", false),
            ("soap", true),
            ("Soap", false),
            ("soap/a", false),
            ("a/soap", false),
        ] {
            let place = names.place(&Key::parse(key).unwrap());
            assert_eq!(names.is_reserved(&place), annexed, "{key}");
            assert_eq!(names.key(&place).unwrap().as_str(), key);
        }
        for name in [".well-known/acme-challenge/t", "soap"] {
            assert_eq!(names.key(&Path::from(name)), None, "{name}");
        }
        let below = Names::new("p", Naming::Flat).unwrap();
        assert!(!below.is_reserved(&below.place(&Key::parse("soap").unwrap())));
    }

    #[test]
    fn what_is_no_key_of_ours_is_told_apart() {
        let names = Names::new("p", Naming::Flat).unwrap();
        for foreign in
            ["p", "q/a", "pa", "p/a.", "p/.storage/keys/0", "p/.storage/keys/C4", "p/.storage/keys/c4", "p/.storage/x"]
        {
            assert_eq!(names.key(&Path::parse(foreign).unwrap()), None, "{foreign}");
        }
        for prefix in ["//", "a//b", "a/..", ".storage", ".storage/x", "a\\b"] {
            let error = Names::new(prefix, Naming::Flat).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{prefix}");
        }
    }
}
