//! The variables of a session on which this crate relies, whatever the server, `init_connect` or the database say. The table in
//! `docs/backends.md` goes through all that there are.

use storage_core::{Error, ErrorKind, Result};

use crate::{Config, pool::Connection, setup::Setup};

/// The most that a number of rows or bytes can be, where the default is that of the server.
const UNLIMITED: u64 = u64::MAX;

/// What is asked of the server, as a condition under which this crate cannot keep its promises, and what to do.
const REFUSED: [(&str, &str); 6] = [
    (
        "@@log_bin AND NOT @@sql_log_bin",
        "`sql_log_bin` is off, so replicas and backups by the binary log would miss what is written; take it out of the user's \
         `init_connect`",
    ),
    (
        "@@log_bin AND @@binlog_format = 'STATEMENT'",
        "`binlog_format` is STATEMENT, under which InnoDB refuses writes at READ COMMITTED; set it to ROW or MIXED",
    ),
    (
        "(SELECT count(*) FROM information_schema.SESSION_VARIABLES WHERE VARIABLE_NAME = 'WSREP_ON' AND VARIABLE_VALUE = 'ON')",
        "`wsrep_on` is set: a Galera cluster has neither the sequences nor the locks that are needed; name a server that is not \
         part of one",
    ),
    (
        "COALESCE(@@enforce_storage_engine, 'InnoDB') <> 'InnoDB'",
        "`enforce_storage_engine` names another engine than InnoDB, which alone has transactions and foreign keys; set it to \
         InnoDB",
    ),
    (
        "ABS(UNIX_TIMESTAMP(NOW()) - UNIX_TIMESTAMP(SYSDATE())) > 5",
        "`timestamp` is set, so the session's clock stands still; take it out of the user's `init_connect`",
    ),
    (
        "@@max_allowed_packet < 8388608",
        "`max_allowed_packet` is less than 8 MiB; set it to at least that, and to twice the option `chunk_size`",
    ),
];

/// What each connection begins with.
pub(crate) fn setup(config: &Config, database: Option<&str>) -> Setup {
    // Whole seconds, and 0 would not wait at all.
    let wait = config.busy_timeout.as_secs_f64().ceil().max(1.0) as u64;
    let set = [
        ("sql_mode", "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'".into()),
        // Each statement is a transaction of its own unless one was begun, and none begins by itself after another.
        ("autocommit", "ON".into()),
        ("completion_type", "NO_CHAIN".into()),
        ("tx_isolation", "'READ-COMMITTED'".into()),
        ("innodb_snapshot_isolation", "ON".into()),
        ("innodb_lock_wait_timeout", wait.to_string()),
        ("lock_wait_timeout", wait.to_string()),
        // Answers are whole, and no statement is refused for its size or time.
        ("sql_select_limit", UNLIMITED.to_string()),
        ("max_join_size", UNLIMITED.to_string()),
        ("sql_big_selects", "ON".into()),
        ("sql_safe_updates", "OFF".into()),
        ("max_statement_time", "0".into()),
        // By default texts are sorted by no more than their first kilobyte. Rows of that size need room.
        ("max_sort_length", "131072".into()),
        ("sort_buffer_size", "GREATEST(@@sort_buffer_size, 2097152)".into()),
        ("in_predicate_conversion_threshold", "1000".into()),
        ("system_versioning_asof", "DEFAULT".into()),
        // What belongs to an entry goes with it, and each key has one.
        ("foreign_key_checks", "ON".into()),
        ("unique_checks", "ON".into()),
        ("check_constraint_checks", "ON".into()),
        // The first insert would take the number of another row, and replace that.
        ("insert_id", "0".into()),
        ("sql_auto_is_null", "OFF".into()),
        ("sql_if_exists", "OFF".into()),
        ("alter_algorithm", "'DEFAULT'".into()),
        // The pool closes what nobody uses for ten minutes; before, the server shall not.
        ("wait_timeout", "28800".into()),
    ];
    let set: Vec<String> = set.into_iter().map(|(name, value): (_, String)| format!("{name} = {value}")).collect();
    let refused = REFUSED.map(|(condition, _)| condition).join(", ");
    let (database, chunk_size) = (database.map(str::to_lowercase), config.chunk_size as i64);
    Setup {
        statements: format!("SET SESSION {}", set.join(", ")),
        question: format!("SELECT @@max_allowed_packet, CONCAT(LOWER(DATABASE()), ''), {refused}"),
        check: Box::new(move |row| {
            // Half of it is left for what comes with the bytes.
            if chunk_size > row.int()? / 2 {
                return Err(wrong("`max_allowed_packet` must be at least twice the option `chunk_size`"));
            }
            if database.as_ref().is_some_and(|name| row.text().is_ok_and(|other| other != *name)) {
                return Err(wrong("the user's `init_connect` changes the database; take USE out of it"));
            }
            for (_, message) in REFUSED {
                if row.int()? != 0 {
                    return Err(wrong(message));
                }
            }
            Ok(())
        }),
    }
}

/// Warns where a setting of the server alone makes writes less durable than they are elsewhere.
pub(crate) async fn warn(connection: &mut dyn Connection) -> Result<()> {
    let sql = "SELECT @@innodb_flush_log_at_trx_commit";
    let flush = connection.fetch(sql.into(), vec![]).await?.pop().map(|mut row| row.int()).transpose()?;
    if flush != Some(1) {
        tracing::warn!(
            innodb_flush_log_at_trx_commit = flush,
            "the server may lose acknowledged writes when the power fails"
        );
    }
    Ok(())
}

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, message)
}
