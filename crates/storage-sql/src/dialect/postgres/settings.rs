//! The settings of a session on which this crate relies, whatever the server, the database or the role say. The table in
//! `docs/backends.md` goes through all that there are.

use std::sync::OnceLock;

use storage_config::Durability;
use storage_core::{Error, ErrorKind, Result};

use crate::{Config, pool::Connection, setup::Setup};

/// What each statement outside of a caller's transaction needs.
const ISOLATION: &str = "read committed";

/// What a session sets where it finds something else, as far as the server knows it. All of it may be set by any user.
const SET: [(&str, &str); 7] = [
    ("default_transaction_deferrable", "off"),
    // The option `timeout` says how long a statement may take.
    ("statement_timeout", "0"),
    // The pool closes what nobody uses for ten minutes; before, the server shall not.
    ("idle_session_timeout", "0"),
    ("exit_on_error", "off"),
    ("standard_conforming_strings", "on"),
    ("default_table_access_method", "heap"),
    // No error shall hold values.
    ("log_parameter_max_length_on_error", "0"),
];

/// What only an administrator sets: with `replica`, foreign keys do not delete what belongs to an entry; with the others,
/// damaged pages pass for empty ones.
const REFUSED: &str = "(name = 'session_replication_role' AND setting = 'replica') OR \
                       (name IN ('zero_damaged_pages', 'ignore_checksum_failure') AND setting = 'on')";

/// Settings that come with the connection rather than by statements: a pooler that would give them to other clients, or others'
/// to us, refuses them.
pub(super) fn startup(config: &Config) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("lock_timeout", lock_timeout(config)),
        ("default_transaction_isolation", ISOLATION.into()),
        // It would hold for the statement that sets it.
        ("statement_timeout", "0".into()),
    ];
    if config.durability == Durability::Relaxed {
        settings.push(("synchronous_commit", "off".into()));
    }
    settings
}

/// In milliseconds.
fn lock_timeout(config: &Config) -> String {
    config.busy_timeout.as_millis().max(1).to_string()
}

/// What each connection begins with.
pub(crate) fn setup(config: &Config) -> Setup {
    let mut set = SET.map(|(name, value)| format!("('{name}', '{value}')")).to_vec();
    if config.durability != Durability::Relaxed {
        set.push("('synchronous_commit', 'on')".into());
    }
    let set = set.join(", ");
    let lock_timeout = lock_timeout(config);
    let schema = OnceLock::new();
    Setup {
        // Of the durability only what is weaker is changed: a server may be set to more than its own disk.
        statements: format!(
            "SELECT pg_catalog.set_config(s.name, v.value, false) FROM (VALUES {set}) AS v (name, value) \
             JOIN pg_catalog.pg_settings s ON s.name = v.name WHERE s.setting <> v.value \
             AND (s.name <> 'synchronous_commit' OR s.setting = 'off')"
        ),
        question: format!(
            "SELECT (SELECT count(*) FROM pg_catalog.pg_settings WHERE (name = 'lock_timeout' AND setting = '{lock_timeout}') \
             OR (name = 'default_transaction_isolation' AND setting = '{ISOLATION}')), \
             (SELECT coalesce(string_agg(name, ' and '), '') FROM pg_catalog.pg_settings WHERE {REFUSED}), \
             current_setting('server_encoding'), coalesce(CAST(current_schema() AS text), '')"
        ),
        check: Box::new(move |row| {
            if row.int()? != 2 {
                return Err(wrong(
                    "the settings of the connection did not arrive; let the pooler in between pass on the startup parameter \
                     `options`, or set the user's `lock_timeout` to the option `busy_timeout`, and \
                     `default_transaction_isolation` to `read committed`"
                        .into(),
                ));
            }
            let (refused, encoding, current) = (row.text()?, row.text()?, row.text()?);
            if !refused.is_empty() {
                return Err(wrong(format!(
                    "with {refused} as the server, the database or the role sets it, stored values would be lost; reset it \
                     for this user"
                )));
            }
            if encoding != "UTF8" {
                return Err(wrong(format!(
                    "the encoding of the database is {encoding}, which cannot hold every text; create one with the encoding UTF8"
                )));
            }
            match schema.get_or_init(|| current.clone()) == &current {
                true => Ok(()),
                false => Err(wrong(
                    "the `search_path` of the user was changed and leads to another schema; connect again, or change it back"
                        .into(),
                )),
            }
        }),
    }
}

/// Warns where a setting of the server alone makes writes less durable than they are elsewhere.
pub(crate) async fn warn(connection: &mut dyn Connection) -> Result<()> {
    let sql = "SELECT coalesce(string_agg(name, ' and '), '') FROM pg_catalog.pg_settings \
               WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'";
    let off = connection.fetch(sql.into(), vec![]).await?.pop().map(|mut row| row.text()).transpose()?;
    if let Some(off) = off.filter(|off| !off.is_empty()) {
        tracing::warn!("{off} is off, so the server may lose acknowledged writes when the power fails");
    }
    Ok(())
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
