//! What the rest of the crate needs of a database. A dialect is one file that implements these two traits; everything else is
//! SQL that all of them understand.

#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::fmt::Debug;

use bytes::Bytes;
use storage_core::{Error, ErrorKind, Key, Result, async_trait};

/// A database that can be reached, with its pool of connections and the few texts in which databases differ.
#[async_trait]
pub(crate) trait Database: Debug + Send + Sync + 'static {
    /// A connection of the pool; it goes back when dropped.
    async fn acquire(&self) -> Result<Box<dyn Connection>>;

    fn is_closed(&self) -> bool;

    /// Closes the connections that are in the pool, and every other as soon as it comes back.
    async fn close(&self);

    /// Makes sure of what the database as a whole must be set to. Runs before the schema is written.
    async fn prepare(&self, connection: &mut dyn Connection) -> Result<()>;

    /// An identifier, quoted.
    fn quote(&self, identifier: &str) -> String;

    /// How many of the names given as so many arguments are taken in the database.
    fn count_names(&self, names: usize) -> String;

    /// The statements that create the schema.
    fn create(&self, tables: &Tables) -> Vec<String>;

    /// Now, in microseconds since 1970, by the database's clock.
    fn now(&self) -> &'static str;

    /// Increments the counter and returns it, a random integer, and the time of [`now`](Self::now).
    fn next_version(&self, tables: &Tables) -> String;
}

/// One connection. Dropped inside a transaction, it is closed, which rolls the transaction back.
#[async_trait]
pub(crate) trait Connection: Send {
    /// Runs a statement with `?` for each argument, and returns how many rows it changed.
    async fn execute(&mut self, sql: String, arguments: Vec<Value>) -> Result<u64>;

    /// Runs a statement with `?` for each argument, and returns the rows it yields.
    async fn fetch(&mut self, sql: String, arguments: Vec<Value>) -> Result<Vec<Row>>;

    /// Begins a transaction that sees the database as it is now, and may write from now on if `write`.
    async fn begin(&mut self, tables: &Tables, write: bool) -> Result<()>;

    /// Turns a transaction into one that may write.
    ///
    /// # Errors
    /// `Conflict` when anybody has written since it began, or is about to.
    async fn begin_writing(&mut self, tables: &Tables) -> Result<()>;

    async fn commit(&mut self) -> Result<()>;

    async fn rollback(&mut self) -> Result<()>;
}

/// The quoted names of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) entries: String,
    pub(crate) fields: String,
    pub(crate) tags: String,
    pub(crate) uploads: String,
    pub(crate) chunks: String,
    pub(crate) indexes: String,
    pub(crate) meta: String,
    /// All of them without quotes, and how the names of indexes begin.
    pub(crate) plain: Vec<String>,
}

impl Tables {
    pub(crate) fn new(table: &str, database: &dyn Database) -> Self {
        let mut plain = Vec::new();
        let mut name = |suffix: &str| {
            let name = format!("{table}{suffix}");
            let quoted = database.quote(&name);
            plain.push(name);
            quoted
        };
        Self {
            entries: name(""),
            fields: name("_fields"),
            tags: name("_tags"),
            uploads: name("_uploads"),
            chunks: name("_chunks"),
            indexes: name("_indexes"),
            meta: name("_meta"),
            plain,
        }
    }
}

/// An argument or a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Bytes),
}

impl Value {
    pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(Bytes::copy_from_slice(bytes.as_ref()))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        Self::bytes(key.as_str())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The columns of a row, taken in their order.
#[derive(Debug)]
pub(crate) struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(crate) fn new(columns: Vec<Value>) -> Self {
        Self(columns.into_iter())
    }

    pub(crate) fn int(&mut self) -> Result<i64> {
        self.optional_int()?.ok_or_else(unreadable)
    }

    pub(crate) fn optional_int(&mut self) -> Result<Option<i64>> {
        match self.0.next() {
            Some(Value::Int(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        match self.0.next() {
            Some(Value::Text(value)) => Ok(value),
            _ => Err(unreadable()),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        self.optional_bytes()?.ok_or_else(unreadable)
    }

    pub(crate) fn optional_bytes(&mut self) -> Result<Option<Bytes>> {
        match self.0.next() {
            Some(Value::Bytes(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            _ => Err(unreadable()),
        }
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "a row of the database is not what this crate writes; was it changed by hand?")
}
