//! The few texts in which databases differ. Everything else is SQL that all of them understand.

#[cfg(feature = "mysql")]
pub(crate) mod mariadb;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::{fmt::Debug, time::Duration};

/// The columns of an entry that are arguments, in this order.
pub(crate) const ARGUMENTS: [&str; 9] =
    ["nonce", "size", "content_type", "metadata", "chunk", "upload", "data", "described", "entry_key"];
/// The columns that the database fills in.
pub(crate) const FILLED: &str = "version, created_at, updated_at, leftovers";
/// What a write yields for each entry that it wrote.
pub(crate) const WRITTEN: &str = "entry_key, id, version, nonce, created_at, updated_at, leftovers";
/// What the value that is replaced has outside of its row: 1 for fields or tags, 2 for chunks.
pub(crate) const LEFTOVERS: &str = "described + CASE WHEN upload IS NULL THEN 0 ELSE 2 END";

/// What a write asks of the entry that may be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing.
    Replace,
    /// That it is not there.
    Create,
    /// That it has the version and the nonce which are two more arguments behind those of its only row.
    Match,
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// A few statements that belong together, each of which sees the database as it is then.
    Write,
    /// A batch that is a transaction, as isolated from callers' transactions as these from one another.
    Isolated,
    /// The same for a batch of deletes: a key that it finds without a value has none until its end.
    Deletes,
    /// A caller's transaction, which sees the database as it is now.
    Snapshot,
}

/// The types of columns, and what stands behind the columns of a table.
#[derive(Debug)]
pub(crate) struct Types {
    /// A primary key that the database counts, and never uses again.
    pub(crate) id: &'static str,
    pub(crate) int: &'static str,
    pub(crate) float: &'static str,
    pub(crate) text: &'static str,
    pub(crate) bytes: &'static str,
    /// Up to 1,024 bytes that can be indexed.
    pub(crate) key: &'static str,
    /// Up to [`HEAD`](crate::query::HEAD) bytes that can be indexed.
    pub(crate) head: &'static str,
    pub(crate) table: &'static str,
    /// Behind a table whose rows lie in the order of the primary key.
    pub(crate) clustered: &'static str,
}

/// What is around a change of the schema, in a transaction that writes.
#[derive(Debug)]
pub(crate) struct SchemaLock {
    /// Yields a 1 when the lock is there.
    pub(crate) lock: Option<String>,
    /// Behind the commit.
    pub(crate) unlock: Option<String>,
}

pub(crate) trait Dialect: Debug + Send + Sync + 'static {
    fn types(&self) -> Types;

    /// Whether there is one writer at a time, for which all others have to wait.
    fn one_writer(&self) -> bool {
        false
    }

    /// Makes sure, in a transaction, that none of the entries of which a condition holds was changed or deleted since it began, where
    /// writing them does not. It fails, or yields two numbers that must be equal.
    fn see_deletes(&self, _: &Tables, _condition: &str) -> Option<String> {
        None
    }

    /// An identifier, quoted.
    fn quote(&self, identifier: &str) -> String {
        format!("\"{identifier}\"")
    }

    /// How many of the names given as so many arguments are taken in the database.
    fn count_names(&self, names: usize) -> String;

    /// The sequence of the versions, where it is not a column.
    fn create_sequence(&self, tables: &Tables) -> Option<String>;

    /// The column `past` of the uploads.
    fn add_owner(&self, uploads: &str, past: &str) -> String {
        let int = self.types().int;
        format!("ALTER TABLE {uploads} ADD COLUMN past {int} REFERENCES {past} (version) ON DELETE CASCADE")
    }

    /// Now, in microseconds since 1970, by the database's clock.
    fn now(&self) -> &'static str;

    /// Whether the metadata of a row of this table can be read. Nothing but an etag asks for it, since no etag is that of a
    /// damaged entry.
    fn sound(&self, table: &str) -> String;

    /// When an entry was written that is replaced now, if the clock did not go back, and then.
    fn later(&self, now: &str) -> String {
        format!("greatest(e.updated_at, {now})")
    }

    /// What must run before so many [`version`](Self::version)s.
    fn advance(&self, _: &Tables, _: usize) -> Option<String> {
        None
    }

    /// A version that is larger than each before it, and that `behind` others follow.
    fn version(&self, tables: &Tables, behind: usize) -> String;

    /// The version of an entry that is replaced: of a sequence the next number, taken when the row is locked, so that the later
    /// writer has the larger one.
    fn newer(&self, tables: &Tables) -> String {
        self.version(tables, 0)
    }

    /// Behind a select of rows that are about to be written.
    fn lock(&self) -> &'static str {
        " FOR UPDATE"
    }

    fn begin(&self, tables: &Tables, begin: Begin) -> String;

    /// Begins a transaction that writes, but it fails at once if another process writes; every other statement waits for as long
    /// as it is told. Only where there is one writer at a time.
    fn begin_at_once(&self, _: Duration) -> Option<String> {
        None
    }

    /// Empties a long log: as far as that is possible beside readers and writers, and then the file, with the lock of writers, for
    /// which nobody is waited for in between the second and the last. The third yields a 0 when it was done.
    fn cut_log(&self, _: Duration) -> Option<[String; 4]> {
        None
    }

    /// Yields a number that is another after somebody else has written. Only where there is one writer at a time.
    fn data_version(&self) -> Option<&'static str> {
        None
    }

    /// Makes a transaction one that may write. It fails if anybody has written since it began, or is about to.
    fn begin_writing(&self, _: &Tables) -> Option<String> {
        None
    }

    /// How others are kept from changing the schema meanwhile.
    fn schema_lock(&self, tables: &Tables) -> SchemaLock;

    /// The number of the index of a field whose name is an argument, as its writer stores it.
    fn index_of(&self, tables: &Tables) -> String {
        format!("(SELECT id FROM {} WHERE name = ?)", tables.indexes)
    }

    /// Waits, in a transaction, for those that may have asked for an [`index_of`](Self::index_of) or see the indexes as they
    /// are now, and makes all others wait for its end.
    fn lock_indexes(&self, _: &Tables) -> Option<String> {
        None
    }

    /// Writes entries and yields [`WRITTEN`] of those it wrote; MariaDB also of those it did not, with their old nonce. If
    /// `plain`, only over entries that have nothing outside of their row.
    fn write(&self, tables: &Tables, how: How, rows: usize, plain: bool) -> String {
        let (entries, now) = (&tables.entries, self.now());
        let set = |from: &str, version: &str, now: &str| {
            let set = ARGUMENTS[..8].iter().map(|column| match from {
                "" => format!("{column} = ?"),
                from => format!("{column} = {from}.{column}"),
            });
            let set = set.collect::<Vec<_>>().join(", ");
            let (leftovers, later) = (qualified(LEFTOVERS), self.later(now));
            format!("leftovers = {leftovers}, version = {version}, updated_at = {later}, {set}")
        };
        let guard = if plain { "e.described = 0 AND e.upload IS NULL" } else { "1 = 1" };
        let version = self.version(tables, 0);
        if how == How::Match {
            let (set, sound) = (set("", &version, now), self.sound("e"));
            return format!(
                "UPDATE {entries} AS e SET {set} WHERE e.entry_key = ? AND e.version = ? AND e.nonce = ? AND {guard} \
                 AND {sound} RETURNING {WRITTEN}"
            );
        }
        let rows = rows_of(self.version_rows(tables, rows));
        let conflict = match how {
            How::Create => "NOTHING".to_owned(),
            _ => format!("UPDATE SET {} WHERE {guard}", set("excluded", &self.newer(tables), "excluded.updated_at")),
        };
        let columns = ARGUMENTS.join(", ");
        format!(
            "INSERT INTO {entries} AS e ({FILLED}, {columns}) VALUES {rows} ON CONFLICT (entry_key) DO {conflict} \
             RETURNING {WRITTEN}"
        )
    }

    /// What [`FILLED`] gets in each of so many rows.
    fn version_rows(&self, tables: &Tables, rows: usize) -> Vec<String> {
        let now = self.now();
        (0..rows).map(|i| format!("{}, {now}, {now}, 0", self.version(tables, rows - 1 - i))).collect()
    }
}

/// The lists of values of an insert, from what the database fills in.
fn rows_of(filled: Vec<String>) -> String {
    let places = vec!["?"; ARGUMENTS.len()].join(", ");
    let rows = filled.into_iter().map(|filled| format!("({filled}, {places})"));
    rows.collect::<Vec<_>>().join(", ")
}

/// [`LEFTOVERS`] of the table with the alias `e`.
fn qualified(leftovers: &str) -> String {
    leftovers.replace("described", "e.described").replace("upload", "e.upload")
}

/// The quoted names of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) entries: String,
    pub(crate) fields: String,
    pub(crate) tags: String,
    pub(crate) uploads: String,
    pub(crate) chunks: String,
    pub(crate) past: String,
    pub(crate) indexes: String,
    pub(crate) meta: String,
    #[cfg_attr(not(any(feature = "postgres", feature = "mysql")), allow(dead_code, reason = "only servers have one"))]
    pub(crate) sequence: String,
    /// All of them without quotes, and how the names of indexes begin.
    pub(crate) plain: Vec<String>,
}

impl Tables {
    pub(crate) fn new(table: &str, dialect: &dyn Dialect) -> Self {
        let mut plain = Vec::new();
        let mut name = |suffix: &str| {
            let name = format!("{table}{suffix}");
            let quoted = dialect.quote(&name);
            plain.push(name);
            quoted
        };
        Self {
            entries: name(""),
            fields: name("_fields"),
            tags: name("_tags"),
            uploads: name("_uploads"),
            chunks: name("_chunks"),
            past: name("_past"),
            indexes: name("_indexes"),
            meta: name("_meta"),
            sequence: name("_sequence"),
            plain,
        }
    }
}
