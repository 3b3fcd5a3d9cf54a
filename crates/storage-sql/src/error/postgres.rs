//! PostgreSQL's codes, <https://www.postgresql.org/docs/current/errcodes-appendix.html>: the first two letters are a class.

use storage_core::ErrorKind;

use super::{BROKEN, BUSY, FASTER, Meaning, NO_TABLE, UNKNOWN};

pub(super) fn meaning(code: &str, message: &str) -> Meaning {
    match (code.get(..2).unwrap_or_default(), code) {
        // The last is what every statement gets after one of the others.
        (_, "40001" | "40P01" | "23505" | "25P02") => (ErrorKind::Conflict, FASTER),
        (_, "55P03") => (ErrorKind::Timeout, BUSY),
        (_, "57014") => (ErrorKind::Timeout, "the database cancelled the statement; try again"),
        (_, "08P01") if message.contains("startup parameter") => (
            ErrorKind::Config,
            "the pooler refuses the settings of the connection; connect without one, or see the README of storage-sql",
        ),
        // The server has closed the connection, by two of them because the transaction was idle or took too long.
        (_, "57P03" | "57P01" | "57P02" | "57P05" | "25P03" | "25P04") | ("08", _) => (ErrorKind::Unavailable, BROKEN),
        ("28", _) => (ErrorKind::Unauthenticated, UNKNOWN),
        (_, "42501") => (ErrorKind::PermissionDenied, "the user may not do that; grant it the right to use the tables"),
        (_, "25006") => (ErrorKind::PermissionDenied, "the database is read-only; name one that can be written"),
        (_, "3D000") => (ErrorKind::NotFound, "the database does not exist; create it first"),
        (_, "3F000") => (ErrorKind::NotFound, "the schema does not exist; create it, or change the user's search path"),
        (_, "42P01") => (ErrorKind::NotFound, NO_TABLE),
        (_, "53100") => (ErrorKind::Unavailable, "the server's disk is full; free some space"),
        (_, "53300") => {
            (ErrorKind::Unavailable, "the server has too many connections; try again, or lower `max_connections`")
        }
        ("53", _) => (ErrorKind::Unavailable, "the server ran out of memory or of another resource; try again"),
        ("54", _) => (ErrorKind::TooLarge, "the statement is larger than the server takes"),
        (_, "58030") => (ErrorKind::Unavailable, "the server cannot read or write its files; check its disk"),
        ("XX", "XX001" | "XX002") => (ErrorKind::Corrupt, "the database is damaged; restore it from a backup"),
        _ => (ErrorKind::Other, "the database refused the statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_that_refuses_settings_is_not_a_broken_connection() {
        assert_eq!(meaning("08P01", "unsupported startup parameter: options").0, ErrorKind::Config);
        assert_eq!(meaning("08P01", "invalid message format").0, ErrorKind::Unavailable);
    }
}
