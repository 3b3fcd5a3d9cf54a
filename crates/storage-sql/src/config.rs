//! What can be configured, and the factory that connects.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use storage_core::{
    BackendFactory, ConnectionConfig, Durability, Error, ErrorKind, Result, StorageBackend, StorageContext, async_trait,
};

use crate::Sql;

/// Where the database is and how to use it. Start from [`Config::sqlite`] and assign.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The database file. It is created; the directory must exist.
    #[serde(skip)]
    pub path: PathBuf,
    /// The name of the main table, and how the names of the others begin; `storage` unless set. A letter or `_`, then
    /// letters, digits and `_`, 48 bytes at most.
    pub table: String,
    /// What an acknowledged write survives; [`Durability::Full`] unless set (`synchronous = FULL`). With
    /// [`Durability::Relaxed`] (`NORMAL`) power loss may take the last few, and tears none.
    pub durability: Durability,
    /// The most connections at once, one for each open transaction included; 10 unless set.
    pub max_connections: u32,
    /// How long to wait for another writer or for a free connection, up to an hour; 5 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub busy_timeout: Duration,
    /// The metadata fields by which queries should be fast. They are indexed from the first connection that names them on,
    /// for good.
    #[serde(deserialize_with = "names")]
    pub indexes: BTreeSet<String>,
    /// Values of more bytes than this are stored in chunks of this size, 1 KiB to 16 MiB; 256 KiB unless set. Values stored
    /// before keep the size of theirs.
    pub chunk_size: usize,
    /// How long a streamed write may receive nothing before another connection takes it for abandoned and removes what it
    /// has staged; a day unless set.
    #[serde(deserialize_with = "seconds")]
    pub sweep_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            table: "storage".into(),
            durability: Durability::default(),
            max_connections: 10,
            busy_timeout: Duration::from_secs(5),
            indexes: BTreeSet::new(),
            chunk_size: 256 * 1024,
            sweep_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Config {
    /// A SQLite database in this file, with the defaults.
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), ..Self::default() }
    }

    /// Reads a URI, as in `sqlite:./data.db?durability=relaxed`, and its options.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let scheme = connection.scheme()?;
        if !SqlFactory.schemes().contains(&scheme) {
            return Err(wrong(format!(
                "the scheme `{scheme}` is not one of a SQL database; write `sqlite:` and the path of a file"
            )));
        }
        let path = connection.location()?.into();
        let config = Self { path, ..connection.typed()? };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let name = self.path.as_os_str();
        if name.is_empty() {
            return Err(wrong("name the database file, as in `sqlite:./storage.db`".into()));
        }
        if name == ":memory:" {
            return Err(wrong("a database in memory is not supported: name a file, or use the memory backend".into()));
        }
        let mut letters = self.table.bytes();
        let first = |c: u8| c.is_ascii_alphabetic() || c == b'_';
        if !letters.next().is_some_and(first)
            || !letters.all(|c| c.is_ascii_alphanumeric() || c == b'_')
            || self.table.len() > 48
            || self.table.to_ascii_lowercase().starts_with("sqlite_")
        {
            return Err(wrong(
                "the option `table` must be a letter or `_`, then letters, digits and `_`, 48 at most, and not begin \
                 with `sqlite_`"
                    .into(),
            ));
        }
        if self.max_connections == 0 {
            return Err(wrong("the option `max_connections` must be at least 1".into()));
        }
        if self.busy_timeout > Duration::from_secs(3600) {
            return Err(wrong("the option `busy_timeout` must be at most an hour".into()));
        }
        if !(1024..=16 << 20).contains(&self.chunk_size) {
            return Err(wrong("the option `chunk_size` must be between 1024 and 16777216 bytes".into()));
        }
        Ok(())
    }
}

/// Connects `sqlite:` and the path of a file, relative (`sqlite:./data.db`) or absolute (`sqlite:///var/lib/data.db`).
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlFactory;

#[async_trait]
impl BackendFactory for SqlFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &["sqlite"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        Ok(Arc::new(Sql::connect(Config::from_connection(config)?).await?))
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| de::Error::custom("a time is a number of seconds, not negative"))
}

/// A list, or a text with commas where the option stands in a URI.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = BTreeSet<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of names, or names with commas between them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let names = text.split(',').filter(|name| !name.is_empty());
            Ok(names.map(str::to_owned).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeSet::new();
            while let Some(name) = list.next_element()? {
                names.insert(name);
            }
            Ok(names)
        }
    }
    deserializer.deserialize_any(Names)
}
