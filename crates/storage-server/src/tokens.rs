//! Who may do what: tokens from a file that is read again when it changes.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER_PERMISSIVE;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use storage_core::{ErrorKind, Result};
use storage_rest_wire::AccessJson;
use subtle::{Choice, ConstantTimeEq};

use crate::{answer::Failure, config::wrong};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest token, in characters.
const SHORTEST: usize = 16;

/// What a caller may do.
#[derive(Debug)]
pub(crate) struct Grant {
    /// The name for logs, and what write ids and transactions belong to.
    pub(crate) name: String,
    pub(crate) access: AccessJson,
    /// Those that are under way.
    pub(crate) requests: Requests,
}

impl Grant {
    /// That of everybody on this machine.
    pub(crate) fn local(clear: bool, requests: usize) -> Self {
        let access = AccessJson { read: true, write: true, clear, prefix: String::new() };
        Self { name: "local".into(), access, requests: Requests::new(requests) }
    }
}

/// How many requests are under way, and may be.
#[derive(Debug)]
pub(crate) struct Requests {
    now: Arc<AtomicUsize>,
    most: usize,
}

/// The place of a request that is under way.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Requests {
    fn new(most: usize) -> Self {
        Self { now: Arc::default(), most }
    }

    /// A place, if one is free.
    pub(crate) fn enter(&self) -> Option<Place> {
        // Given back at once where it is one too many.
        let place = Place(self.now.clone());
        (place.0.fetch_add(1, Ordering::AcqRel) < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The tokens of a file, as they are now.
pub(crate) struct Tokens {
    path: PathBuf,
    requests: usize,
    now: RwLock<Loaded>,
}

struct Loaded {
    tokens: Vec<Token>,
    stamp: Option<(SystemTime, u64)>,
}

/// What is known of a secret. It cannot be compared by `==`, which would stop at the first byte that differs.
#[derive(Clone, Copy)]
struct Digest([u8; 32]);

impl Digest {
    fn of(secret: &str) -> Self {
        let (mut bytes, digest) = ([0; 32], digest(&SHA256, secret.as_bytes()));
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Whether both are the same, in a time that does not depend on their bytes.
    fn same(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

struct Token {
    digest: Digest,
    expires: Option<DateTime<Utc>>,
    grant: Arc<Grant>,
}

/// What the file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: Option<String>,
    secret: Option<String>,
    scopes: BTreeSet<Scope>,
    #[serde(default)]
    prefix: String,
    expires: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Read,
    Write,
    Clear,
}

impl Tokens {
    /// Reads the file.
    pub(crate) fn load(path: &Path, requests: usize) -> Result<Self> {
        let loaded = read(path, requests, &[])?;
        Ok(Self { path: path.to_owned(), requests, now: RwLock::new(loaded) })
    }

    /// Reads the file again whenever it changes. One that cannot be read leaves the tokens as they are.
    pub(crate) async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look();
        }
    }

    fn look(&self) {
        let stamp = stamp(&self.path);
        {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            if now.stamp == stamp {
                return;
            }
        }
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        match read(&self.path, self.requests, &now.tokens) {
            Ok(loaded) => {
                tracing::info!(target: "storage_server", tokens = loaded.tokens.len(), "the file of tokens was read again");
                *now = loaded;
            }
            Err(e) => {
                tracing::error!(target: "storage_server", error = %e, "the file of tokens cannot be read; the old ones stay");
                now.stamp = stamp;
            }
        }
    }

    /// What the header `Authorization` allows.
    pub(crate) fn grant(&self, authorization: Option<&str>) -> Result<Arc<Grant>, Failure> {
        let refused = |detail: &str| Failure::new(ErrorKind::Unauthenticated, detail);
        let header =
            authorization.ok_or_else(|| refused("authentication required; send `Authorization: Bearer TOKEN`"))?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(refused("unsupported authorization scheme; send `Authorization: Bearer TOKEN`")),
        };
        let given = Digest::of(token);
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        match find(&now.tokens, &given) {
            None => Err(refused("unknown token")),
            Some(known) if known.expires.is_some_and(|end| end <= DateTime::<Utc>::from(SystemTime::now())) => {
                Err(refused("the token has expired"))
            }
            Some(known) => Ok(known.grant.clone()),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The token with this digest. All are compared, each in constant time, so that how long it takes tells nothing.
fn find<'t>(tokens: &'t [Token], given: &Digest) -> Option<&'t Token> {
    let mut found = None;
    for known in tokens {
        if bool::from(known.digest.same(given)) {
            found = Some(known);
        }
    }
    found
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Reads the file. A token that stays keeps its count of requests.
fn read(path: &Path, requests: usize, old: &[Token]) -> Result<Loaded> {
    let stamp = stamp(path);
    let text =
        fs::read_to_string(path).map_err(|e| wrong(format!("the file of tokens cannot be read: {}", e.kind())))?;
    // The parser's own message would show the line, and with it a token.
    let line = |e: &toml::de::Error| {
        let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
        before.matches('\n').count() + 1
    };
    let file: File = toml::from_str(&text).map_err(|e| {
        wrong(format!("the file of tokens is not as it should be, in line {}; see the README", line(&e)))
    })?;
    let mut tokens: Vec<Token> = Vec::new();
    for entry in file.token {
        let name = entry.name.clone();
        let mut token = token(entry, requests)?;
        if tokens.iter().any(|other| other.grant.name == name || other.digest.same(&token.digest).into()) {
            return Err(wrong(format!("the token {name:?} is there twice, or another has its name")));
        }
        let kept = find(old, &token.digest).filter(|old| old.grant.access == token.grant.access);
        if let Some(kept) = kept.filter(|kept| kept.grant.name == name) {
            token.grant = kept.grant.clone();
        }
        tokens.push(token);
    }
    Ok(Loaded { tokens, stamp })
}

fn token(entry: Entry, requests: usize) -> Result<Token> {
    let Entry { name, sha256, secret, scopes, prefix, expires } = entry;
    let about = |what: &str| wrong(format!("the token {name:?}: {what}"));
    let bytes = match (&sha256, &secret) {
        (Some(hex), None) => HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()),
        (None, Some(secret)) if secret.len() < SHORTEST => {
            return Err(about("it is too short; take one of at least 16 characters"));
        }
        (None, Some(secret)) => Some(Digest::of(secret).0),
        _ => return Err(about("give its `sha256`, or the `secret` itself, and not both")),
    };
    let digest = bytes.map(Digest).ok_or_else(|| about("its `sha256` must be 64 hexadecimal digits"))?;
    let expires = expires.map(|text| DateTime::parse_from_rfc3339(&text)).transpose();
    let expires = expires.map_err(|_| about("`expires` must be as of RFC 3339, `2027-01-31T00:00:00Z`"))?;
    let access = AccessJson {
        read: scopes.contains(&Scope::Read),
        write: scopes.contains(&Scope::Write),
        clear: scopes.contains(&Scope::Clear),
        prefix,
    };
    let grant = Grant { name, access, requests: Requests::new(requests) };
    Ok(Token { digest, expires: expires.map(Into::into), grant: Arc::new(grant) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_says_too_little_or_too_much_is_refused_without_repeating_a_token() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, hint) in [
            ("[[token]]\nname = 'a'\nscopes = ['read']\nsecret = 'hunter2'", "too short"),
            ("[[token]]\nname = 'a'\nscopes = ['read']", "`sha256`"),
            ("[[token]]\nname = 'a'\nscopes = ['all']\nsecret = 'hunter2hunter2hunter2'", "line 3"),
            ("[[token]]\nname = 'a'\nscopes = []\nsha256 = 'hunter2'", "64 hexadecimal digits"),
            ("[[token]]\nname = 'a'\nscopes = []\nsecret = 'hunter2hunter2hunter2'\nexpires = 'soon'", "RFC 3339"),
        ] {
            fs::write(file.path(), text).unwrap();
            let e = Tokens::load(file.path(), 1).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.to_string().contains(hint), "{e}");
            assert!(!format!("{e:?}").contains("hunter"), "{e:?}");
        }
    }

    #[test]
    fn tokens_are_compared_in_constant_time_over_digests_of_one_length() {
        // What compares is `subtle`'s, and takes two arrays of 32 bytes, whatever the length of the secrets.
        let compare: fn(&Digest, &Digest) -> Choice = Digest::same;
        let [short, long] = ["a", &"a".repeat(10_000)].map(Digest::of);
        assert_eq!((short.0.len(), long.0.len()), (32, 32));
        assert!(bool::from(compare(&short, &Digest::of("a"))) && !bool::from(compare(&short, &long)));
        // There is no other way: digests have no `==`. The method of the trait wins over that of every type only for types that have it.
        trait Other {
            fn has_eq(&self) -> bool {
                false
            }
        }
        impl<T> Other for T {}
        struct Probe<T>(std::marker::PhantomData<T>);
        impl<T: PartialEq> Probe<T> {
            #[allow(clippy::unused_self, reason = "it stands beside the method of the trait")]
            fn has_eq(&self) -> bool {
                true
            }
        }
        assert!(Probe::<[u8; 32]>(std::marker::PhantomData).has_eq());
        assert!(!Probe::<Digest>(std::marker::PhantomData).has_eq());
        // All are looked at: of two alike the last is found, which a search that stops early would not do.
        let grant = Arc::new(Grant::local(false, 1));
        let tokens = [1, 2, 3].map(|n| Token {
            digest: Digest::of("same"),
            expires: None,
            grant: if n == 3 { Arc::new(Grant::local(true, 1)) } else { grant.clone() },
        });
        assert!(find(&tokens, &Digest::of("same")).unwrap().grant.access.clear);
        assert!(find(&tokens, &Digest::of("other")).is_none());
    }
}
