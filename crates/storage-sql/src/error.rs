//! The only place where the database's errors become kinds.

use std::path::Path;

use sqlx::error::DatabaseError;
use storage_core::{Error, ErrorKind};

/// What an error of the driver means. Statements never hold values, so its own text can be passed on.
pub(crate) fn from_sqlx(e: sqlx::Error) -> Error {
    let (kind, message) = match &e {
        sqlx::Error::Database(e) => sqlite(e.as_ref()),
        sqlx::Error::PoolTimedOut => (
            ErrorKind::Timeout,
            "no connection became free in time; raise `max_connections` or end transactions sooner",
        ),
        sqlx::Error::PoolClosed => return Error::closed(),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
            (ErrorKind::Unavailable, "the connection to the database broke")
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            (ErrorKind::Corrupt, "a column of the database is not readable")
        }
        _ => (ErrorKind::Other, "the database driver failed"),
    };
    Error::new(kind, message).with_source(e)
}

/// SQLite's result codes, <https://www.sqlite.org/rescode.html>: the lowest byte is the primary one.
fn sqlite(e: &dyn DatabaseError) -> (ErrorKind, &'static str) {
    let code: u32 = e.code().and_then(|code| code.parse().ok()).unwrap_or(1);
    match (code & 0xff, code) {
        (_, 517) => (ErrorKind::Conflict, "another writer was faster; run the transaction again"),
        (5 | 6, _) => (
            ErrorKind::Timeout,
            "another writer or an open transaction kept the database locked; try again, or raise `busy_timeout`",
        ),
        (_, 1032) => (ErrorKind::NotFound, "the database file was moved or deleted; connect again"),
        (3 | 8 | 23, _) => (
            ErrorKind::PermissionDenied,
            "the database cannot be written; check the permissions of the file and of its directory",
        ),
        (7, _) => (ErrorKind::Unavailable, "the database ran out of memory"),
        (10, _) => (ErrorKind::Unavailable, "reading or writing the database file failed; check the disk"),
        (11, _) => (ErrorKind::Corrupt, "the database file is damaged; restore it from a backup"),
        (26, _) => (ErrorKind::Corrupt, "the file is not a SQLite database; name another one"),
        (13, _) => (ErrorKind::Unavailable, "the disk is full; free some space"),
        (14, _) => (
            ErrorKind::PermissionDenied,
            "the database file cannot be opened; check the permissions of the file and of its directory, and the number of \
             open files",
        ),
        (15, _) => (ErrorKind::Unavailable, "the locks of the database file do not work; is it on a network drive?"),
        (18, _) => (ErrorKind::TooLarge, "the value is too large for one row"),
        (1, _) if e.message().starts_with("no such table") => {
            (ErrorKind::NotFound, "a table is missing; connect again to create it")
        }
        _ => (ErrorKind::Other, "the database refused the statement"),
    }
}

/// An error of opening a file. SQLite says no more than that it could not, so the file system is asked for the reason.
pub(crate) fn while_opening(e: sqlx::Error, path: &Path) -> Error {
    if code(&e) & 0xff != 14 {
        return from_sqlx(e);
    }
    let directory = path.parent().unwrap_or(path);
    let (kind, message) = if path.is_dir() {
        (ErrorKind::Config, format!("{} is a directory; name a file in it", path.display()))
    } else if !directory.is_dir() {
        (ErrorKind::NotFound, format!("the directory {} does not exist; create it first", directory.display()))
    } else {
        (
            ErrorKind::PermissionDenied,
            format!(
                "{} cannot be opened or created; check the permissions of the file and of its directory",
                path.display()
            ),
        )
    };
    Error::new(kind, message).with_source(e)
}

/// An error of a commit: only where SQLite says that it wrote nothing is the outcome certain.
pub(crate) fn while_committing(e: sqlx::Error) -> Error {
    let definite = matches!(code(&e) & 0xff, 5 | 6 | 13);
    let e = from_sqlx(e);
    if definite { e } else { e.ambiguous() }
}

/// SQLite's result code; 0 when the error is not one of SQLite.
fn code(e: &sqlx::Error) -> u32 {
    let code = e.as_database_error().and_then(DatabaseError::code);
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}
