//! What users and servers may set for every session, and what a session then has.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, Row};
use storage_config::ConnectionConfig;
use storage_core::Storage;
use storage_sql::Config;

use crate::support::{Engine, Place};

/// What a user of MariaDB may set, each to what would break a promise, and what must be there in spite of it.
pub(crate) const MARIADB: [(&str, &str, &str); 21] = [
    ("autocommit", "0", "ON"),
    ("completion_type", "1", "NO_CHAIN"),
    ("tx_isolation", "'SERIALIZABLE'", "READ-COMMITTED"),
    ("innodb_lock_wait_timeout", "1", "5"),
    ("lock_wait_timeout", "1", "5"),
    ("sql_select_limit", "50", "18446744073709551615"),
    ("max_join_size", "1", "18446744073709551615"),
    ("sql_big_selects", "0", "ON"),
    ("sql_safe_updates", "1", "OFF"),
    ("max_statement_time", "0.0001", "0.000000"),
    ("max_sort_length", "64", "131072"),
    ("sort_buffer_size", "1024", "2097152"),
    ("in_predicate_conversion_threshold", "2", "1000"),
    ("system_versioning_asof", "'2001-01-01 00:00:00'", "DEFAULT"),
    ("foreign_key_checks", "0", "ON"),
    ("unique_checks", "0", "ON"),
    ("check_constraint_checks", "0", "ON"),
    ("sql_auto_is_null", "1", "OFF"),
    ("sql_if_exists", "1", "OFF"),
    ("alter_algorithm", "'INSTANT'", "DEFAULT"),
    ("wait_timeout", "60", "28800"),
];

/// The same of PostgreSQL. `search_path` and what makes the database read-only are the user's own.
pub(crate) const POSTGRES: [(&str, &str, &str); 10] = [
    ("lock_timeout", "1", "5000"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_deferrable", "on", "off"),
    ("statement_timeout", "1", "0"),
    ("idle_session_timeout", "50", "0"),
    ("exit_on_error", "on", "off"),
    ("standard_conforming_strings", "off", "on"),
    ("synchronous_commit", "off", "on"),
    ("log_parameter_max_length_on_error", "100", "0"),
    ("client_encoding", "LATIN1", "UTF8"),
];

/// A user of its own, with all rights on the tables and none on the server.
pub(crate) struct User {
    pub(crate) place: Place,
    pub(crate) name: String,
}

impl User {
    pub(crate) async fn new(place: Place) -> Self {
        let name = format!("h{}", place.table);
        place
            .raw(&match place.engine {
                Engine::Postgres => format!("CREATE ROLE {name} LOGIN PASSWORD 'hunter2' IN ROLE CURRENT_USER"),
                _ => format!(
                    "CREATE USER {name}@'%' IDENTIFIED BY 'hunter2'; GRANT ALL ON *.* TO {name}@'%'; \
                              REVOKE SUPER, CONNECTION ADMIN ON *.* FROM {name}@'%'"
                ),
            })
            .await;
        Self { place, name }
    }

    pub(crate) fn config(&self) -> Config {
        let uri = self.place.uri();
        let (scheme, rest) = uri.split_once("://").unwrap();
        let uri = format!("{scheme}://{}:hunter2@{}", self.name, rest.rsplit_once('@').unwrap().1);
        Config::from_connection(&ConnectionConfig::new(uri)).unwrap()
    }

    pub(crate) async fn drop(self) {
        self.place
            .raw(&match self.place.engine {
                Engine::Postgres => format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name),
                _ => format!("DROP USER {}@'%'", self.name),
            })
            .await;
    }
}

/// What is set on the connection of a write, which a trigger tells.
pub(crate) async fn seen(place: &Place, storage: &Storage) -> BTreeMap<String, String> {
    place
        .raw(match place.engine {
            Engine::Postgres => {
                "CREATE TABLE storage_seen (name TEXT, setting TEXT); \
                 CREATE OR REPLACE FUNCTION storage_look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 INSERT INTO storage_seen SELECT name, setting FROM pg_settings; RETURN NULL; END $$; \
                 CREATE OR REPLACE TRIGGER storage_look AFTER INSERT ON storage EXECUTE FUNCTION storage_look()"
            }
            _ => {
                "CREATE TABLE storage_seen (name TEXT, setting TEXT); \
                 CREATE TRIGGER storage_look AFTER INSERT ON storage FOR EACH ROW INSERT INTO storage_seen \
                 SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.SESSION_VARIABLES"
            }
        })
        .await;
    storage.put("seen", "v").await.unwrap();
    place
        .raw(if place.engine == Engine::Postgres {
            "DROP TRIGGER storage_look ON storage"
        } else {
            "DROP TRIGGER storage_look"
        })
        .await;
    let sql = AssertSqlSafe(format!("SELECT name, setting FROM {}_seen", place.table));
    let uri = place.uri();
    let server = uri.split('?').next().unwrap();
    let pair = |name: String, setting: Option<String>| (name.to_lowercase(), setting.unwrap_or_default());
    match place.engine {
        Engine::Postgres => {
            let rows = PgConnection::connect(server).await.unwrap().fetch_all(sql).await.unwrap();
            rows.iter().map(|row| pair(row.get(0), row.get(1))).collect()
        }
        _ => {
            let rows = MySqlConnection::connect(server).await.unwrap().fetch_all(sql).await.unwrap();
            rows.iter().map(|row| pair(row.get(0), row.get(1))).collect()
        }
    }
}
