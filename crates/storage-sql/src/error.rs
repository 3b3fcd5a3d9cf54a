//! The only place where the databases' errors become kinds.

#[cfg(feature = "mysql")]
mod mariadb;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "tls")]
mod tls;

use sqlx::error::DatabaseError;
use storage_core::{Error, ErrorKind};

#[cfg(feature = "sqlite")]
pub(crate) use sqlite::while_opening;

type Meaning = (ErrorKind, &'static str);

const BUSY: &str = "another writer or an open transaction kept the database locked; try again, or raise `busy_timeout`";
const FASTER: &str = "write conflict: another transaction committed first; retry the transaction";
const CANCELLED: &str = "the database cancelled the statement; try again";
const BROKEN: &str = "the connection to the database broke; try again when the server is back";
#[cfg(any(feature = "postgres", feature = "mysql"))]
const UNKNOWN: &str = "the database does not accept user and password; check them in the URI, and `sslmode` and `sslcert` if it \
                       asks for encryption or a certificate";
const NO_TABLE: &str = "a table is missing; connect again to create it";

/// What an error of the driver means. Statements never hold values, so its own text can be passed on.
pub(crate) fn from_sqlx(e: sqlx::Error) -> Error {
    let (kind, message) = match &e {
        sqlx::Error::Database(e) => database(e.as_ref()),
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Timeout,
            "no connection became free in time; raise `max_connections` or end transactions sooner",
        ),
        sqlx::Error::PoolClosed => return Error::closed(),
        #[cfg(feature = "tls")]
        sqlx::Error::Io(e) => tls::meaning(e).unwrap_or((ErrorKind::Unavailable, BROKEN)),
        #[cfg(not(feature = "tls"))]
        sqlx::Error::Io(_) => (ErrorKind::Unavailable, BROKEN),
        sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => (ErrorKind::Unavailable, BROKEN),
        sqlx::Error::Tls(_) => (
            ErrorKind::Config,
            "the connection cannot be encrypted; check `sslmode`, the files of `sslrootcert`, `sslcert` and `sslkey`, that the \
             server has a certificate, and that the feature `tls` is enabled",
        ),
        sqlx::Error::Configuration(_) => (ErrorKind::Config, "the settings of the connection are not usable"),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, "a column of the database is not readable")
        }
        _ => (ErrorKind::Other, "the database driver failed"),
    };
    let error = Error::new(kind, message);
    match repeats_values(&e) {
        true => error.with_source("the database's own message is left out, because it repeats a value"),
        false => error.with_source(e),
    }
}

/// No connection could be made in time, beside so many that are in use.
pub(crate) fn unreachable(e: sqlx::Error, in_use: usize) -> Error {
    let message = match in_use {
        0 => "the database cannot be reached; check the address, and that the server runs",
        _ => {
            "no further connection could be made, though others are in use; lower `max_connections` to what the server, or the \
             pooler in between, lets in"
        }
    };
    Error::new(ErrorKind::Unavailable, message).with_source(e)
}

/// An error of a commit: only where the database says that it wrote nothing is the outcome certain.
pub(crate) fn while_committing(e: sqlx::Error) -> Error {
    let definite = e.as_database_error().is_some_and(|e| match database(e).0 {
        ErrorKind::Conflict => true,
        #[cfg(feature = "sqlite")]
        _ => sqlite::wrote_nothing(e),
        #[cfg(not(feature = "sqlite"))]
        _ => false,
    });
    let e = from_sqlx(e);
    if definite { e } else { e.ambiguous() }
}

/// An error of a statement that is a transaction of its own: if its answer is lost, nobody knows what it did.
pub(crate) fn while_writing(e: Error) -> Error {
    let driver = std::error::Error::source(&e).and_then(|source| source.downcast_ref::<sqlx::Error>());
    let answered = driver.is_some_and(|driver| driver.as_database_error().is_some());
    match e.kind() {
        ErrorKind::Unavailable if e.message() == BROKEN => e.ambiguous(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Other if !answered => e.ambiguous(),
        _ => e,
    }
}

fn database(e: &dyn DatabaseError) -> Meaning {
    #[cfg(feature = "sqlite")]
    if let Some(e) = e.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        return sqlite::meaning(e);
    }
    #[cfg(feature = "postgres")]
    if let Some(e) = e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return postgres::meaning(e.code(), e.routine(), e.message());
    }
    #[cfg(feature = "mysql")]
    if let Some(e) = e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return mariadb::meaning(e.number());
    }
    (ErrorKind::Other, "the database refused the statement")
}

/// Whether the database's message holds what somebody wanted to store.
fn repeats_values(e: &sqlx::Error) -> bool {
    #[cfg(feature = "mysql")]
    if let Some(e) = e.as_database_error()
        && let Some(e) = e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
    {
        return mariadb::repeats_values(e.number());
    }
    let _ = e;
    false
}
