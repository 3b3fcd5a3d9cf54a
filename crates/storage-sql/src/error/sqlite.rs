//! SQLite's result codes, <https://www.sqlite.org/rescode.html>: the lowest byte is the primary one.

use std::path::Path;

use sqlx::{error::DatabaseError, sqlite::SqliteError};
use storage_core::{Error, ErrorKind};

use super::{BUSY, CANCELLED, FASTER, Meaning, NO_TABLE, from_sqlx};

pub(super) fn meaning(e: &SqliteError) -> Meaning {
    let code = code(e);
    match (code & 0xff, code) {
        (_, 517) => (ErrorKind::Conflict, FASTER),
        (5 | 6, _) => (ErrorKind::Timeout, BUSY),
        (_, 1032) => (ErrorKind::Unavailable, "the database file was moved or removed; put it back, or connect again"),
        // The statement, or the transaction, was ended for another; the last when somebody changes the tables.
        (_, 516) | (17, _) => (ErrorKind::Conflict, FASTER),
        (9, _) => (ErrorKind::Timeout, CANCELLED),
        // Checksums of the page or of the file system.
        (_, 8202 | 8458) => (ErrorKind::Corrupt, "the database file is damaged; restore it from a backup"),
        (22, _) => (ErrorKind::TooLarge, "the file system takes no file of that size"),
        (3 | 8 | 23, _) => (
            ErrorKind::PermissionDenied,
            "the database cannot be written; check the permissions of the file and of its directory",
        ),
        (7, _) => (ErrorKind::Unavailable, "the database ran out of memory"),
        (10, _) => (ErrorKind::Unavailable, "reading or writing the database file failed; check the disk"),
        (11, _) => (ErrorKind::Corrupt, "the database file is damaged; restore it from a backup"),
        (26, _) => (ErrorKind::Corrupt, "the file is not a SQLite database; name another one"),
        (13, _) => (
            ErrorKind::Unavailable,
            "the disk is full; free 20 MiB by removing other files first: SQLite needs room even to delete, and can then make \
             more by deleting values",
        ),
        (14, _) => (
            ErrorKind::PermissionDenied,
            "the database file cannot be opened; check the permissions of the file and of its directory, and the number of \
             open files",
        ),
        (15, _) => (ErrorKind::Unavailable, "the locks of the database file do not work; is it on a network drive?"),
        (18, _) => (ErrorKind::TooLarge, "the value is too large for one row"),
        (1, _) if e.message().starts_with("no such table") => (ErrorKind::NotFound, NO_TABLE),
        _ => (ErrorKind::Other, "the database refused the statement"),
    }
}

/// Whether a commit that failed so has written nothing for sure.
pub(super) fn wrote_nothing(e: &dyn DatabaseError) -> bool {
    e.try_downcast_ref::<SqliteError>().is_some_and(|e| matches!(code(e) & 0xff, 5 | 6 | 13))
}

/// An error of opening a file. SQLite says no more than that it could not, so the file system is asked for the reason.
pub(crate) fn while_opening(e: sqlx::Error, path: &Path) -> Error {
    let sqlite = e.as_database_error().and_then(|e| e.try_downcast_ref::<SqliteError>());
    if sqlite.is_none_or(|e| code(e) & 0xff != 14) {
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

fn code(e: &SqliteError) -> u32 {
    e.code().and_then(|code| code.parse().ok()).unwrap_or(1)
}
