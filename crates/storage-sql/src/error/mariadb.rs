//! MariaDB's codes, <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use storage_core::ErrorKind;

use super::{BROKEN, BUSY, FASTER, Meaning, NO_TABLE, UNKNOWN};

pub(super) fn meaning(number: u16) -> Meaning {
    match number {
        1213 | 1020 | 1062 => (ErrorKind::Conflict, FASTER),
        1205 => (ErrorKind::Timeout, BUSY),
        1969 | 3024 => (ErrorKind::Timeout, "the database cancelled the statement; try again"),
        1053 | 1077..=1080 | 1152 | 1158..=1161 | 1184 | 1317 | 1927 | 2006 | 2013 => (ErrorKind::Unavailable, BROKEN),
        1040 | 1203 | 1226 => {
            (ErrorKind::Unavailable, "the server has too many connections; try again, or lower `max_connections`")
        }
        1045 | 1698 | 1862 => (ErrorKind::Unauthenticated, UNKNOWN),
        1044 | 1130 | 1142 | 1143 | 1227 | 1370 => {
            (ErrorKind::PermissionDenied, "the user may not do that; grant it the right to use the tables")
        }
        1290 | 1792 | 1836 => (ErrorKind::PermissionDenied, "the database is read-only; name one that can be written"),
        1046 => (ErrorKind::Config, "name a database, as in `mariadb://host/database`"),
        1049 => (ErrorKind::NotFound, "the database does not exist; create it first"),
        1146 | 4091 => (ErrorKind::NotFound, NO_TABLE),
        1021 | 1114 => (ErrorKind::Unavailable, "the server's disk is full; free some space"),
        1037 | 1038 | 1041 => (ErrorKind::Unavailable, "the server ran out of memory; try again"),
        1153 | 1118 | 1406 => {
            (ErrorKind::TooLarge, "the value is larger than the server takes; see `max_allowed_packet`")
        }
        1034 | 1035 | 1194 | 1712 => (ErrorKind::Corrupt, "the database is damaged; restore it from a backup"),
        1193 => (
            ErrorKind::Config,
            "the server lacks a setting that this crate needs; use MariaDB 10.6.18, 10.11.8, 11.4.2 or newer, not MySQL",
        ),
        _ => (ErrorKind::Other, "the database refused the statement"),
    }
}

/// Duplicate keys, and values that do not fit their column.
pub(super) fn repeats_values(number: u16) -> bool {
    matches!(number, 1062 | 1264 | 1292 | 1366 | 1406)
}
