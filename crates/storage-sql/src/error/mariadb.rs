//! MariaDB's codes, <https://mariadb.com/kb/en/mariadb-error-code-reference/>.

use storage_core::ErrorKind;

use super::{BROKEN, BUSY, CANCELLED, FASTER, Meaning, NO_TABLE, UNKNOWN};

pub(super) fn meaning(number: u16) -> Meaning {
    match number {
        // The third under load, when the counter of a table is locked; the last two when somebody changes the tables.
        1213 | 1020 | 1467 | 1062 | 1614 | 1689 | 1412 | 1615 => (ErrorKind::Conflict, FASTER),
        1205 | 1027 | 1099 | 1223 | 1613 => (ErrorKind::Timeout, BUSY),
        1028 | 1317 | 1931 | 1969 | 3024 => (ErrorKind::Timeout, CANCELLED),
        1053 | 1077..=1080 | 1152 | 1156..=1161 | 1184 | 1927 | 2006 | 2013 => (ErrorKind::Unavailable, BROKEN),
        1040 | 1203 | 1226 => {
            (ErrorKind::Unavailable, "the server has too many connections; try again, or lower `max_connections`")
        }
        1129 | 2194 => (
            ErrorKind::Unavailable,
            "the server blocks this host or user after too many failed connections; unblock it with \
             `mariadb-admin flush-hosts`",
        ),
        1045 | 1698 | 1820 | 1862 | 2195 | 4151 => (ErrorKind::Unauthenticated, UNKNOWN),
        1044 | 1130 | 1142 | 1143 | 1227 | 1370 => {
            (ErrorKind::PermissionDenied, "the user may not do that; grant it the right to use the tables")
        }
        1036 | 1290 | 1792 | 1836 => (
            ErrorKind::PermissionDenied,
            "the database is read-only, by `read_only` of the server or `tx_read_only` of the user; name one that can be \
             written",
        ),
        1046 => (ErrorKind::Config, "name a database, as in `mariadb://host/database`"),
        1049 => (ErrorKind::NotFound, "the database does not exist; create it first"),
        1146 | 4091 => (ErrorKind::NotFound, NO_TABLE),
        1021 | 1026 | 1114 | 1878 => {
            (ErrorKind::Unavailable, "the server's disk or a temporary table is full; free some space")
        }
        1037 | 1038 | 1041 | 1135 | 1206 | 1637 => {
            (ErrorKind::Unavailable, "the server ran out of memory or of another resource; try again")
        }
        // In the third the code is that of the engine; the last ends a commit.
        1016 | 1023 | 1030 | 1047 | 1180 | 1296 | 1297 => {
            (ErrorKind::Unavailable, "the server cannot use its tables now; see its log, and try again")
        }
        1118 | 1153 | 1197 | 1301 | 1406 => (
            ErrorKind::TooLarge,
            "the value is larger than the server takes; see `max_allowed_packet` and `max_binlog_cache_size`",
        ),
        1034 | 1035 | 1194 | 1195 | 1712 | 1817 | 1877 | 1932 => {
            (ErrorKind::Corrupt, "the database is damaged; restore it from a backup")
        }
        1104 => (ErrorKind::Config, "the server's `max_join_size` is too small; raise it, or set `sql_big_selects`"),
        1175 => (ErrorKind::Config, "`sql_safe_updates` is set, which refuses statements that are needed; reset it"),
        1461 => (
            ErrorKind::Config,
            "the server's `max_prepared_stmt_count` is too small; raise it, or lower the option `max_connections`",
        ),
        1598 | 1665 => {
            (ErrorKind::Config, "the server's `binlog_format` refuses what is written; set it to ROW or MIXED")
        }
        1235 => (
            ErrorKind::Config,
            "the server lacks what is needed; a Galera cluster (`wsrep_on`) is not supported, use a server that is not part of one",
        ),
        1286 => (
            ErrorKind::Config,
            "the server lacks InnoDB, or `enforce_storage_engine` names another engine; change that",
        ),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_right_kind() {
        for (kind, numbers) in [
            (ErrorKind::Conflict, &[1467, 1213, 1020, 1062, 1412, 1615][..]),
            (ErrorKind::Timeout, &[1205, 1969, 3024, 1317, 1028]),
            (ErrorKind::Unavailable, &[2013, 2006, 1053, 1927, 1040, 1135, 1180, 1030, 1047]),
            (ErrorKind::Config, &[1461, 1665, 1175, 1235, 1104, 1193]),
            (ErrorKind::PermissionDenied, &[1290, 1792, 1142]),
            (ErrorKind::TooLarge, &[1153, 1197]),
        ] {
            for number in numbers {
                assert_eq!(meaning(*number).0, kind, "{number}");
            }
        }
        for (number, name) in
            [(1461, "max_prepared_stmt_count"), (1665, "binlog_format"), (1175, "sql_safe_updates"), (1235, "wsrep_on")]
        {
            assert!(meaning(number).1.contains(name), "{number}");
        }
    }
}
