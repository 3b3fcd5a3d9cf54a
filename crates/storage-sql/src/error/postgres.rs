//! PostgreSQL's codes, <https://www.postgresql.org/docs/current/errcodes-appendix.html>: the first two letters are a class.

use storage_core::ErrorKind;

use super::{BROKEN, BUSY, CANCELLED, FASTER, Meaning, NO_TABLE, UNKNOWN};

/// `routine` is the function of the server that says it; a message comes in the language of the server (`lc_messages`).
pub(super) fn meaning(code: &str, routine: Option<&str>, message: &str) -> Meaning {
    match (code.get(..2).unwrap_or_default(), code) {
        // The last is what every statement gets after one of the others.
        (_, "40001" | "40P01" | "23505" | "25P02") => (ErrorKind::Conflict, FASTER),
        // What the server cannot tell the end of is as if the connection had broken.
        (_, "40003") => (ErrorKind::Unavailable, BROKEN),
        ("40", _) | (_, "72000") => (ErrorKind::Conflict, FASTER),
        // "cached plan must not change result type": somebody has changed the tables.
        (_, "0A000") if routine == Some("RevalidateCachedQuery") => (ErrorKind::Conflict, FASTER),
        (_, "55P03" | "55006") => (ErrorKind::Timeout, BUSY),
        (_, "57014") => (ErrorKind::Timeout, CANCELLED),
        (_, "42P05" | "26000") => (
            ErrorKind::Config,
            "the pooler gives each transaction another connection; let it pool sessions (`pool_mode = session` of PgBouncer)",
        ),
        (_, "22021" | "22P05") => (
            ErrorKind::Config,
            "the encoding of the database cannot hold every text; create one with the encoding UTF8",
        ),
        (_, "57P04") => (ErrorKind::NotFound, "the database was dropped; create it again, and connect"),
        // PgBouncer has no other sign of it, and no other language.
        (_, "08P01") if message.contains("startup parameter") => (
            ErrorKind::Config,
            "the pooler refuses the settings of the connection; connect without one, or see the README of storage-sql",
        ),
        // The server has closed the connection, by two of them because the transaction was idle or took too long.
        ("57" | "08", _) | (_, "25P03" | "25P04") => (ErrorKind::Unavailable, BROKEN),
        ("28", _) => (ErrorKind::Unauthenticated, UNKNOWN),
        (_, "42501") => (ErrorKind::PermissionDenied, "the user may not do that; grant it the right to use the tables"),
        (_, "25006") => (
            ErrorKind::PermissionDenied,
            "the database is read-only, or `default_transaction_read_only` is set; name one that can be written",
        ),
        (_, "3D000") => (ErrorKind::NotFound, "the database does not exist; create it first"),
        (_, "3F000") => (ErrorKind::NotFound, "the schema does not exist; create it, or change the user's search path"),
        (_, "42P01") => (ErrorKind::NotFound, NO_TABLE),
        (_, "53100") => (ErrorKind::Unavailable, "the server's disk is full; free some space"),
        (_, "53300") => {
            (ErrorKind::Unavailable, "the server has too many connections; try again, or lower `max_connections`")
        }
        ("53", _) => (ErrorKind::Unavailable, "the server ran out of memory or of another resource; try again"),
        ("54", _) => (ErrorKind::TooLarge, "the statement is larger than the server takes"),
        (_, "58030" | "58P01" | "58P02") => {
            (ErrorKind::Unavailable, "the server cannot read or write its files; check its disk")
        }
        ("XX", "XX001" | "XX002") => (ErrorKind::Corrupt, "the database is damaged; restore it from a backup"),
        _ => (ErrorKind::Other, "the database refused the statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pooler_that_refuses_settings_is_not_a_broken_connection() {
        assert_eq!(meaning("08P01", None, "unsupported startup parameter: options").0, ErrorKind::Config);
        assert_eq!(meaning("08P01", None, "invalid message format").0, ErrorKind::Unavailable);
    }

    #[test]
    fn codes_are_of_the_right_kind() {
        for (kind, codes) in [
            (ErrorKind::Conflict, &["40001", "40P01", "40002", "25P02", "72000"][..]),
            (ErrorKind::Timeout, &["55P03", "57014"]),
            (ErrorKind::Unavailable, &["57P01", "57P03", "40003", "53300", "53200", "25P04", "58030"]),
            (ErrorKind::Config, &["42P05", "26000", "22P05"]),
            (ErrorKind::TooLarge, &["54000"]),
            (ErrorKind::Corrupt, &["XX001", "XX002"]),
            (ErrorKind::PermissionDenied, &["25006", "42501"]),
        ] {
            for code in codes {
                assert_eq!(meaning(code, None, "").0, kind, "{code}");
            }
        }
        assert_eq!(meaning("0A000", Some("RevalidateCachedQuery"), "").0, ErrorKind::Conflict);
    }
}
