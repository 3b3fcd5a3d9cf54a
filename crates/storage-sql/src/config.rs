//! What can be configured, and the factory that connects.

use std::{
    collections::BTreeSet,
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use storage_config::{BackendFactory, ConnectionConfig, Durability, Secret, StorageContext};
use storage_core::{Error, ErrorKind, Result, StorageBackend, async_trait};

use crate::{Sql, query::HEAD};

/// Where the database is and how to use it. Start from [`Config::sqlite`] or [`Config::from_connection`] and assign.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// The database.
    #[serde(skip)]
    pub place: Place,
    /// The name of the main table, and how the names of the others begin; `storage` unless set. A letter or `_`, then
    /// letters, digits and `_`, 48 bytes at most.
    pub table: String,
    /// What an acknowledged write survives; [`Durability::Full`] unless set. With [`Durability::Relaxed`] power loss may take
    /// the last few, and tears none (SQLite's `synchronous = NORMAL`, PostgreSQL's `synchronous_commit = off`; MariaDB
    /// refuses it).
    pub durability: Durability,
    /// The most connections at once, one for each open transaction included; 10 unless set.
    pub max_connections: u32,
    /// How long to wait for another writer or for a free connection, up to an hour; 5 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub busy_timeout: Duration,
    /// How long one statement may take on a server, up to a day; 30 seconds unless set.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// The metadata fields by which queries should be fast, names of up to 255 bytes. They are indexed from the first
    /// connection that names them on, for good.
    #[serde(deserialize_with = "names")]
    pub indexes: BTreeSet<String>,
    /// Values of more bytes than this are stored in chunks of this size, 1 KiB to 16 MiB; 256 KiB unless set. Values stored
    /// before keep the size of theirs.
    pub chunk_size: usize,
    /// How long a streamed write may receive nothing before another connection takes it for abandoned and removes what it
    /// has staged; a day unless set.
    #[serde(deserialize_with = "seconds")]
    pub sweep_after: Duration,
    /// How many versions of each value are kept, the newest included; without it no older ones.
    pub versions: Option<NonZeroU32>,
    /// Whether connections to a server are encrypted, in the server's own words: `disable` to `verify-full` of PostgreSQL,
    /// `disabled` to `verify_identity` of MariaDB. Unless set, they are if the server offers it, whatever its certificate.
    pub sslmode: Option<String>,
    /// The file with certificates that the server's is checked against, beside those that the system trusts. Only for a mode
    /// that checks.
    pub sslrootcert: Option<PathBuf>,
    /// The file with the client's certificate. Goes together with its key.
    pub sslcert: Option<PathBuf>,
    /// The file with the key to the client's certificate.
    pub sslkey: Option<PathBuf>,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A SQLite file. It is created; the directory must exist.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Server),
    /// A MariaDB server.
    MariaDb(Server),
}

/// `user:password@host:port/database`, percent-encoded as in a URI. `Debug` shows none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(Secret);

impl Server {
    /// Takes what stands in a URI between `scheme://` and `?`.
    pub fn new(location: impl Into<String>) -> Self {
        Self(Secret::new(location))
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.0.expose())
    }

    /// The driver's own error is left out: nobody promises that it does not repeat what it could not read.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn unusable(&self, _: sqlx::Error) -> Error {
        wrong(
            "write the server as `user:password@host:port/database`, with `%40` for an `@` in the password, and so on"
                .into(),
        )
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            place: Place::Sqlite(PathBuf::new()),
            table: "storage".into(),
            durability: Durability::default(),
            max_connections: 10,
            busy_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            indexes: BTreeSet::new(),
            chunk_size: 256 * 1024,
            sweep_after: Duration::from_secs(24 * 60 * 60),
            versions: None,
            sslmode: None,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
        }
    }
}

impl Config {
    /// A SQLite database in this file, with the defaults.
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self { place: Place::Sqlite(path.as_ref().to_owned()), ..Self::default() }
    }

    /// Reads a URI and its options, as in `sqlite:./data.db?durability=relaxed` or `postgres://user:password@host/database`.
    ///
    /// # Errors
    /// `Config` for anything that cannot be meant.
    pub fn from_connection(connection: &ConnectionConfig) -> Result<Self> {
        let scheme = connection.scheme()?.to_ascii_lowercase();
        let server = || Server::new(connection.encoded_location());
        let place = match scheme.as_str() {
            "sqlite" => Place::Sqlite(connection.location()?.into()),
            "postgres" | "postgresql" => Place::Postgres(server()),
            "mysql" | "mariadb" => Place::MariaDb(server()),
            _ => {
                return Err(wrong(
                    "the scheme is not one of a SQL database; write `sqlite:` and the path of a file, or `postgres://` or \
                     `mariadb://` and a server"
                        .into(),
                ));
            }
        };
        let config = Self { place, ..connection.typed()? };
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<()> {
        match &self.place {
            Place::Sqlite(path) => self.check_file(path)?,
            Place::Postgres(server) | Place::MariaDb(server) => {
                let location = server.0.expose();
                let (who, place) = location.rsplit_once('@').unwrap_or(("", location));
                if who.contains(['/', '#', '@', '[', ']']) {
                    return Err(wrong(
                        "write `/` in the user or password as `%2F`, `#` as `%23`, `@` as `%40`, `[` as `%5B`, `]` as `%5D`"
                            .into(),
                    ));
                }
                let port = place.split('/').next().unwrap_or_default().rsplit_once(':');
                if port.is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err()) {
                    return Err(wrong(
                        "write the server as `user:password@host:port/database`: what stands behind the `:` is no port"
                            .into(),
                    ));
                }
                if place.split_once('/').is_none_or(|(host, database)| host.is_empty() || database.is_empty()) {
                    return Err(wrong("name the server and the database, as in `postgres://host/database`".into()));
                }
            }
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
        let within = |name: &str, holds: bool, must: &str| match holds {
            true => Ok(()),
            false => Err(wrong(format!("the option `{name}` must {must}"))),
        };
        within("max_connections", self.max_connections > 0, "be at least 1")?;
        within("busy_timeout", self.busy_timeout <= Duration::from_secs(3600), "be at most an hour")?;
        let day = Duration::from_secs(24 * 60 * 60);
        within("timeout", !self.timeout.is_zero() && self.timeout <= day, "be more than 0 and at most a day")?;
        within("chunk_size", (1024..=16 << 20).contains(&self.chunk_size), "be between 1024 and 16777216 bytes")?;
        let short = self.indexes.iter().all(|name| (1..=HEAD).contains(&name.len()));
        within("indexes", short, "name fields of 1 to 255 bytes")
    }

    fn check_file(&self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() {
            return Err(wrong("name the database file, as in `sqlite:./storage.db`".into()));
        }
        if path.as_os_str() == ":memory:" {
            return Err(wrong("a database in memory is not supported: name a file, or use the memory backend".into()));
        }
        let encrypted = [&self.sslrootcert, &self.sslcert, &self.sslkey];
        if self.sslmode.is_some() || encrypted.iter().any(|path| path.is_some()) {
            return Err(wrong(
                "a file has no connection to encrypt; leave out the options that begin with `ssl`".into(),
            ));
        }
        if self.timeout != Self::default().timeout {
            return Err(wrong("the option `timeout` is for servers; a file has `busy_timeout`".into()));
        }
        Ok(())
    }
}

/// Connects `sqlite:` and the path of a file, relative (`sqlite:./data.db`) or absolute (`sqlite:///var/lib/data.db`),
/// `postgres://` or `postgresql://` and `mariadb://` or `mysql://` and a server, as far as the features bring them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlFactory;

#[async_trait]
impl BackendFactory for SqlFactory {
    fn schemes(&self) -> &'static [&'static str] {
        &[
            #[cfg(feature = "sqlite")]
            "sqlite",
            #[cfg(feature = "postgres")]
            "postgres",
            #[cfg(feature = "postgres")]
            "postgresql",
            #[cfg(feature = "mysql")]
            "mariadb",
            #[cfg(feature = "mysql")]
            "mysql",
        ]
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
