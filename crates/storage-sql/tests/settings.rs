//! What a server, a database or a user sets for every session: it changes nothing, or is refused by name.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/habits.rs"]
mod habits;
mod support;

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use habits::{MARIADB, POSTGRES, User, seen};
use sqlx::{Connection, MySqlConnection, PgConnection};
use storage_config::ConnectionConfig;
use storage_core::{ErrorKind, GetOptions, Metadata, OrderBy, PutOptions, Query, Storage};
use storage_sql::{Config, Sql};
use support::{Engine, Place, proxy::Proxy};
use tokio::time::sleep;

/// The table of all variables.
const DOCS: &str = include_str!("../../../docs/backends.md");

/// Promises that rest on settings. The tables are new.
async fn promises(place: &Place, storage: &Storage) {
    let described = |n: i64| PutOptions::new().metadata(Metadata::new().tag("t").field("n", n));
    let before = SystemTime::now();
    storage.put_with("a", "first", described(1)).await.unwrap();
    let entry = storage.put("b", "second").await.unwrap();
    let age = entry.modified.unwrap().duration_since(before).unwrap_or_default();
    assert!(age.as_secs() < 60, "{entry:?}");
    // Another connection sees what was acknowledged, each under its own key.
    assert_eq!(place.count("SELECT count(*) FROM storage").await, 2, "{:?}", place.engine);
    assert_eq!(storage.get("a").await.unwrap().unwrap(), "first");
    // What belongs to an entry goes with it.
    storage.delete("a").await.unwrap();
    assert_eq!(
        place.count("SELECT (SELECT count(*) FROM storage_tags) + (SELECT count(*) FROM storage_fields)").await,
        0
    );
    // Answers are whole.
    let keys: Vec<String> = (0..300).map(|i| format!("many/{i:03}")).collect();
    storage.put_batch(keys.iter().map(|key| (key.as_str(), "v"))).await.unwrap();
    let got = storage.get_batch(keys.iter().map(String::as_str)).await.unwrap();
    assert_eq!(got.len(), 300, "{:?}", place.engine);
    assert_eq!(storage.keys().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 301);
    // Long texts are ordered to their end.
    let text = |end: &str| format!("{}{end}", "x".repeat(2000));
    for (key, end) in [("text/1", "b"), ("text/2", "a")] {
        let options = PutOptions::new().metadata(Metadata::new().field("text", text(end)));
        storage.put_with(key, "v", options).await.unwrap();
    }
    let query = Query::new().prefix("text/").ascending(OrderBy::Field("text".into()));
    let page = storage.query_page(query).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["text/2", "text/1"]);
    // A transaction is one, and what follows it is not part of the next.
    let tx = storage.begin().await.unwrap();
    tx.put("tx", "v").await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM storage").await, 303);
    tx.commit().await.unwrap();
    storage.put("after", "v").await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM storage").await, 305);
    let tx = storage.begin().await.unwrap();
    assert_eq!(tx.get("after").await.unwrap().unwrap(), "v");
    storage.put("after", "w").await.unwrap();
    assert_eq!(tx.get("after").await.unwrap().unwrap(), "v");
    assert!(tx.put("after", "x").await.is_err_and(|e| e.kind() == ErrorKind::Conflict));
    drop(tx);
    let large = vec![7; 1 << 20];
    storage.put("large", large.clone()).await.unwrap();
    assert!(storage.get_with("large", GetOptions::new()).await.unwrap().unwrap() == large);
    storage.clear().await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM storage_uploads").await, 0);
}

/// Connects, looks at the settings, and tries the promises.
async fn unimpressed(place: &Place, config: Config, expected: &[(&str, &str, &str)]) {
    let storage = place.connect(config).await;
    promises(place, &storage).await;
    let seen = seen(place, &storage).await;
    for (name, _, expected) in expected {
        assert_eq!(seen[*name], *expected, "{name} on {:?}", place.engine);
    }
    assert_eq!(storage.get("seen").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn what_a_user_of_mariadb_begins_with() {
    for place in only(Engine::MariaDb) {
        let user = User::new(place).await;
        let sets: Vec<String> = MARIADB.iter().map(|(name, value, _)| format!("{name} = {value}")).collect();
        // For this user alone. The mode is restored behind a block. The last makes the next row replace another.
        let is_own = format!("CURRENT_USER() LIKE '{}@%'", user.name);
        let habits = format!(
            "SET sql_mode = IF({is_own}, 'ORACLE,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,HIGH_NOT_PRECEDENCE', \
             @@sql_mode), time_zone = IF({is_own}, '+05:00', @@time_zone), \
             character_set_results = IF({is_own}, 'latin1', @@character_set_results); \
             IF {is_own} THEN SET {}, insert_id = 1; END IF",
            sets.join(", ")
        );
        user.place.raw(&format!("SET GLOBAL init_connect = \"{habits}\"")).await;
        let mut config = user.config();
        config.max_connections = 3;
        let done = tokio::spawn(async move {
            unimpressed(&user.place, config, &MARIADB).await;
            user
        });
        let done = done.await;
        // Others run beside this test.
        for place in only(Engine::MariaDb) {
            place.raw("SET GLOBAL init_connect = ''").await;
        }
        done.unwrap().drop().await;
    }
}

#[tokio::test]
async fn what_a_role_or_a_database_of_postgres_begins_with() {
    for place in only(Engine::Postgres) {
        let user = User::new(place).await;
        let set = |what: &str| {
            let set = POSTGRES.iter().map(|(name, value, _)| format!("ALTER {what} SET {name} = '{value}'; "));
            set.collect::<String>()
        };
        user.place.raw(&set(&format!("ROLE {}", user.name))).await;
        unimpressed(&user.place, user.config(), &POSTGRES).await;
        user.drop().await;

        let Some(place) = only(Engine::Postgres).next() else { continue };
        let name = format!("d{}", place.table);
        place.raw(&format!("CREATE DATABASE {name}")).await;
        // The test's own connections keep to this one.
        let set = set(&format!("DATABASE {name}")).replace("statement_timeout = '1'", "statement_timeout = '60000'");
        place.raw(&set).await;
        let other = place.in_database(&name);
        unimpressed(&other, other.config(), &POSTGRES).await;
        place.raw(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }
}

/// What the servers themselves are set to, as far as it does no harm to who else uses them.
const GLOBAL: [&str; 7] = [
    "sql_select_limit",
    "tx_isolation",
    "lock_wait_timeout",
    "max_sort_length",
    "sort_buffer_size",
    "in_predicate_conversion_threshold",
    "wait_timeout",
];
const SYSTEM: [&str; 2] = ["default_transaction_deferrable", "log_parameter_max_length_on_error"];

#[tokio::test]
async fn what_a_whole_server_begins_with() {
    for place in Place::encrypted() {
        let (expected, names): (&[_], &[&str]) = match place.engine {
            Engine::Postgres => (&POSTGRES, &SYSTEM),
            _ => (&MARIADB, &GLOBAL),
        };
        let expected: Vec<_> = expected.iter().copied().filter(|(name, ..)| names.contains(name)).collect();
        assert_eq!(expected.len(), names.len());
        let (set, reset) = match place.engine {
            Engine::Postgres => ("ALTER SYSTEM SET", "ALTER SYSTEM RESET"),
            _ => ("SET GLOBAL", "SET GLOBAL"),
        };
        for (name, value, _) in &expected {
            place.raw(&format!("{set} {name} = {value}")).await;
        }
        if place.engine == Engine::Postgres {
            place.raw("SELECT pg_reload_conf()").await;
            let sql =
                "SELECT count(*) FROM pg_settings WHERE name = 'log_parameter_max_length_on_error' AND setting = '100'";
            let mut looks = 0..1000;
            while looks.next().is_some() && place.count(sql).await == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(!looks.is_empty(), "the server does not read its configuration");
        }
        let mut config = place.config();
        config.max_connections = 2;
        let connected = async {
            let storage = Storage::new(Sql::connect(config).await?);
            // Both connections are there then.
            let tx = storage.begin().await?;
            storage.has("k").await?;
            tx.rollback().await?;
            Ok::<_, storage_core::Error>(storage)
        };
        let connected = connected.await;
        for (name, ..) in &expected {
            let to = if place.engine == Engine::Postgres { "" } else { " = DEFAULT" };
            place.raw(&format!("{reset} {name}{to}")).await;
        }
        let storage = connected.unwrap();
        promises(&place, &storage).await;
        let seen = seen(&place, &storage).await;
        for (name, _, expected) in expected {
            assert_eq!(seen[name], expected, "{name} on {:?}", place.engine);
        }
        if place.engine == Engine::Postgres {
            place.raw("SELECT pg_reload_conf()").await;
        }
    }
}

fn only(engine: Engine) -> impl Iterator<Item = Place> {
    Place::servers().into_iter().filter(move |place| place.engine == engine)
}

/// That connecting is refused, and by which name.
async fn refused(config: Config, name: &str) {
    let e = Sql::connect(config).await.expect_err("it connects");
    assert_eq!(e.kind(), ErrorKind::Config, "{name}: {e:?}");
    assert!(e.message().contains(name), "{name}: {e}");
}

#[tokio::test]
async fn what_only_an_administrator_of_mariadb_sets_is_refused_by_name() {
    for place in only(Engine::MariaDb) {
        // As of a server that answers otherwise.
        for (question, other, name) in [
            ("@@log_bin AND NOT", "NOT @@log_bin OR ", "sql_log_bin"),
            ("@@log_bin AND @@binlog", "1 = 1 OR      @@binlog", "binlog_format"),
            ("VARIABLE_VALUE = 'ON'", "VARIABLE_VALUE > '  '", "wsrep_on"),
            (", 'InnoDB') <>", ", 'MyISAM') <>", "enforce_storage_engine"),
            ("@@max_allowed_packet < 8388608", "@@max_allowed_packet > 8388608", "max_allowed_packet"),
            ("LOWER(DATABASE())", "LOWER('elsewher')", "init_connect"),
            ("SYSDATE())) > 5", "SYSDATE())) < 5", "timestamp"),
        ] {
            let proxy = Proxy::new(place.engine);
            proxy.replace(question, other);
            let uri = proxy.uri(&place.table);
            refused(Config::from_connection(&ConnectionConfig::new(uri)).unwrap(), name).await;
        }
    }
}

#[tokio::test]
async fn what_only_an_administrator_of_postgres_sets_is_refused_by_name() {
    for place in only(Engine::Postgres) {
        let user = User::new(place).await;
        for (name, value) in
            [("session_replication_role", "replica"), ("zero_damaged_pages", "on"), ("ignore_checksum_failure", "on")]
        {
            user.place.raw(&format!("ALTER ROLE {} SET {name} = {value}", user.name)).await;
            refused(user.config(), name).await;
            user.place.raw(&format!("ALTER ROLE {} RESET {name}", user.name)).await;
        }
        user.drop().await;
    }
    for place in only(Engine::Postgres) {
        for encoding in ["LATIN1", "SQL_ASCII"] {
            let name = format!("d{}", place.table);
            place
                .raw(&format!(
                    "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
                ))
                .await;
            refused(place.in_database(&name).config(), encoding).await;
            place.raw(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }
}

#[tokio::test]
async fn a_search_path_that_is_changed_does_not_split_the_store() {
    for place in only(Engine::Postgres) {
        let user = User::new(place).await;
        let storage = user.place.connect(user.config()).await;
        storage.put("k", "v").await.unwrap();
        let other = format!("s{}", user.place.table);
        user.place
            .raw(&format!(
                "CREATE SCHEMA {other} AUTHORIZATION {0}; ALTER ROLE {0} SET search_path = {other}",
                user.name
            ))
            .await;
        // One of them takes a connection that has to be made.
        let mut open = Vec::new();
        let e = loop {
            match storage.begin().await {
                Ok(tx) => open.push(tx),
                Err(e) => break e,
            }
            assert!(open.len() < 10);
        };
        assert_eq!(e.kind(), ErrorKind::Config, "{e:?}");
        assert!(e.message().contains("search_path"), "{e}");
        assert_eq!(open[0].get("k").await.unwrap().unwrap(), "v");
        drop((open, storage));
        user.drop().await;
    }
}

/// Every variable that a session has stands in the table: those of a family by how they begin.
#[tokio::test]
async fn every_variable_was_thought_of() {
    let named: Vec<&str> = DOCS.split('`').skip(1).step_by(2).collect();
    for place in Place::servers() {
        let uri = place.uri();
        let server = uri.split('?').next().unwrap();
        let names: Vec<String> = match place.engine {
            Engine::Postgres => {
                let sql = "SELECT name FROM pg_settings WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend')";
                sqlx::query_scalar(sql).fetch_all(&mut PgConnection::connect(server).await.unwrap()).await.unwrap()
            }
            _ => {
                let sql = "SELECT LOWER(VARIABLE_NAME) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_SCOPE LIKE 'SESSION%'";
                sqlx::query_scalar(sql).fetch_all(&mut MySqlConnection::connect(server).await.unwrap()).await.unwrap()
            }
        };
        let is_named = |name: &str| {
            named.iter().any(|known| known.strip_suffix('*').map_or(*known == name, |begins| name.starts_with(begins)))
        };
        let missing: Vec<_> = names.iter().filter(|name| !is_named(name)).collect();
        assert!(missing.is_empty(), "docs/backends.md says nothing of {missing:?} of {:?}", place.engine);
    }
}
