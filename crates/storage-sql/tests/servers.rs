//! Servers: who may connect, what is refused untouched, and what is never said.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use storage_config::ConnectionConfig;
use storage_core::{ErrorKind, Metadata, PutOptions, Query};
use storage_sql::{Config, Durability, Sql};
use support::{Engine, Place, kind, proxy::Proxy};

/// The server's address, as another user or for another database.
fn address(engine: Engine, user: &str, database: Option<&str>) -> String {
    let uri = engine.uri();
    let (scheme, rest) = uri.split_once("://").unwrap();
    let (_, place) = rest.rsplit_once('@').unwrap();
    let (host, old) = place.split_once('/').unwrap();
    format!("{scheme}://{user}@{host}/{}", database.unwrap_or(old))
}

fn config(uri: &str) -> Config {
    Config::from_connection(&ConnectionConfig::new(uri)).unwrap()
}

#[tokio::test]
async fn wrong_credentials_and_missing_databases() {
    for place in Place::servers() {
        let engine = place.engine;
        let wrong = Sql::open(&address(engine, "storage:hunter2%40", None)).await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Unauthenticated, "{wrong:?}");
        assert!(!format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        let nobody = Sql::open(&address(engine, "nobody-of-that-name:hunter2", None)).await;
        assert_eq!(kind(nobody), ErrorKind::Unauthenticated);
        let uri = engine.uri();
        let own = uri.split_once("://").unwrap().1.rsplit_once('@').unwrap().0.to_owned();
        let missing = Sql::open(&address(engine, &own, Some("no-such-database"))).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
        let unencrypted = format!("{uri}?sslmode={}", if engine == Engine::Postgres { "require" } else { "required" });
        // This server has no certificate.
        assert_eq!(kind(Sql::open(&unencrypted).await), ErrorKind::Config);
        let unknown = Config::from_connection(&ConnectionConfig::new(format!("{uri}?sslmod=x"))).unwrap_err();
        assert!(unknown.message().contains("`sslmode`"), "{unknown}");
        assert_eq!(kind(Sql::open(&format!("{uri}?sslmode=perhaps")).await), ErrorKind::Config);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached() {
    for place in Place::servers() {
        let scheme = if place.engine == Engine::Postgres { "postgres" } else { "mariadb" };
        // Nobody listens on the first; the second is no address that packets come back from.
        for host in ["127.0.0.1:1", "240.0.0.1:5432"] {
            let begun = Instant::now();
            let e = Sql::open(&format!("{scheme}://me:hunter2@{host}/db?busy_timeout=0.5")).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
            assert!(!format!("{e:?}").contains("hunter2"), "{e:?}");
            assert!(begun.elapsed() < Duration::from_millis(4500), "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn a_server_without_a_setting_that_is_needed() {
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        // As of a server that knows no such thing, MySQL for one.
        match place.engine {
            Engine::Postgres => proxy.replace("pg_catalog.set_config", "pg_catalog.set_confix"),
            _ => proxy.replace("innodb_snapshot_isolation", "innodb_snapshot_isolatiox"),
        }
        let begun = Instant::now();
        let e = Sql::connect(config(&proxy.uri(&place.table))).await.unwrap_err();
        let expected = if place.engine == Engine::Postgres { ErrorKind::Other } else { ErrorKind::Config };
        assert_eq!(e.kind(), expected, "{e:?}");
        assert!(begun.elapsed() < Duration::from_millis(4500), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn foreign_tables_are_left_alone() {
    for place in Place::servers() {
        for (foreign, gone) in [
            ("CREATE TABLE storage (id INT PRIMARY KEY, name INT)", "DROP TABLE storage"),
            ("CREATE TABLE storage_meta (one INT, two INT)", "DROP TABLE storage_meta"),
            (
                "CREATE TABLE storage_meta (one INT, schema_version BIGINT, sequence BIGINT); \
                 INSERT INTO storage_meta VALUES (1, 1, 0)",
                "DROP TABLE storage_meta",
            ),
            ("CREATE VIEW storage_tags AS SELECT 1", "DROP VIEW storage_tags"),
        ] {
            place.raw(foreign).await;
            let e = Sql::connect(place.config()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Config, "{foreign}: {e:?}");
            assert!(e.message().contains("table"), "{e}");
            assert_eq!(tables(&place).await, 1, "{foreign}");
            place.raw(gone).await;
        }
        place.open().await.put("k", "v").await.unwrap();
        place.raw("UPDATE storage_meta SET schema_version = 3").await;
        let e = Sql::connect(place.config()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config);
        assert!(e.message().contains("version 3"), "{e}");
        assert_eq!(place.count("SELECT schema_version FROM storage_meta").await, 3);
    }
}

/// How many tables and views begin like ours.
async fn tables(place: &Place) -> i64 {
    let schema = if place.engine == Engine::Postgres { "current_schema()" } else { "DATABASE()" };
    let sql = format!(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = {schema} AND table_name LIKE 'storage%'"
    );
    place.count(&sql).await
}

#[tokio::test]
async fn an_older_schema_is_migrated_also_by_eight_at_once() {
    for place in Place::all() {
        place.open().await.put("k", "v").await.unwrap();
        // The first version of the schema is the present one without the older versions of values.
        place
            .raw(match place.engine {
                Engine::Sqlite => {
                    "DROP INDEX storage_by_past; ALTER TABLE storage_uploads RENAME TO old; \
                     CREATE TABLE storage_uploads (upload INTEGER PRIMARY KEY AUTOINCREMENT, entry INTEGER, \
                     touched_at INTEGER NOT NULL, FOREIGN KEY (entry) REFERENCES storage (id) ON DELETE CASCADE); \
                     DROP TABLE storage_chunks; CREATE TABLE storage_chunks (upload INTEGER NOT NULL, idx INTEGER NOT NULL, \
                     data BLOB NOT NULL, PRIMARY KEY (upload, idx), FOREIGN KEY (upload) REFERENCES storage_uploads (upload) \
                     ON DELETE CASCADE); DROP TABLE old; DROP TABLE storage_past; UPDATE storage_meta SET schema_version = 1"
                }
                Engine::Postgres => {
                    "ALTER TABLE storage_uploads DROP COLUMN past; DROP TABLE storage_past; \
                     UPDATE storage_meta SET schema_version = 1"
                }
                Engine::MariaDb => {
                    "ALTER TABLE storage_uploads DROP FOREIGN KEY storage_past, DROP COLUMN past; DROP TABLE storage_past; \
                     UPDATE storage_meta SET schema_version = 1"
                }
            })
            .await;
        let mut config = place.config();
        config.versions = std::num::NonZeroU32::new(3);
        let connecting = (0..8).map(|_| tokio::spawn(Sql::connect(config.clone())));
        for connected in connecting.collect::<Vec<_>>() {
            let storage = storage_core::Storage::new(connected.await.unwrap().unwrap());
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
            storage.put("k", "v").await.unwrap();
        }
        assert_eq!(place.count("SELECT schema_version FROM storage_meta").await, 2);
        assert_eq!(place.count("SELECT count(*) FROM storage_past").await, 2);
    }
}

#[tokio::test]
async fn eight_connect_at_once_to_nothing() {
    for place in Place::servers() {
        let connecting = (0..8).map(|i| {
            let mut config = place.config();
            config.indexes = [format!("field {i}")].into();
            tokio::spawn(async move { storage_core::Storage::new(Sql::connect(config).await?).put("k", "v").await })
        });
        for connected in connecting.collect::<Vec<_>>() {
            connected.await.unwrap().unwrap();
        }
        assert_eq!(place.count("SELECT count(*) FROM storage_meta").await, 1);
        assert_eq!(place.count("SELECT count(*) FROM storage_indexes").await, 8);
    }
}

#[tokio::test]
async fn users_who_may_only_read() {
    for place in Place::servers() {
        let storage = place.open().await;
        storage.put("k", "v").await.unwrap();
        let reader = format!("r{}", place.table);
        let (create, grant) = match place.engine {
            Engine::Postgres => (
                format!("CREATE ROLE {reader} LOGIN PASSWORD 'hunter2'"),
                format!("GRANT pg_read_all_data TO {reader}"),
            ),
            _ => (
                format!("CREATE USER '{reader}'@'%' IDENTIFIED BY 'hunter2'"),
                format!("GRANT SELECT ON *.* TO '{reader}'@'%'"),
            ),
        };
        place.raw(&create).await;
        place.raw(&grant).await;
        let uri = address(place.engine, &format!("{reader}:hunter2"), None);
        let mut own = config(&uri);
        own.table = place.table.clone();
        let read_only = place.connect(own.clone()).await;
        assert_eq!(read_only.get("k").await.unwrap().unwrap(), "v");
        for refused in [
            read_only.put("k", "w").await.map(drop),
            read_only.delete("k").await,
            read_only.clear().await,
            read_only.put("large", vec![0; 1 << 20]).await.map(drop),
        ] {
            let e = refused.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::PermissionDenied, false), "{e:?}");
        }
        own.table = format!("{}x", place.table);
        let e = Sql::connect(own).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e:?}");
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        let gone = match place.engine {
            Engine::Postgres => format!("DROP OWNED BY {reader}; DROP ROLE {reader}"),
            _ => format!("DROP USER '{reader}'@'%'"),
        };
        place.raw(&gone).await;
    }
}

#[tokio::test]
async fn durability_is_what_the_server_can_do() {
    for place in Place::servers() {
        let mut config = place.config();
        config.durability = Durability::Relaxed;
        match place.engine {
            Engine::MariaDb => assert_eq!(kind(Sql::connect(config).await), ErrorKind::Config),
            _ => drop(place.connect(config).await.put("k", "v").await.unwrap()),
        }
    }
}

#[tokio::test]
async fn settings_come_with_the_connection() {
    for place in Place::servers().into_iter().filter(|place| place.engine == Engine::Postgres) {
        for durability in [Durability::Full, Durability::Relaxed] {
            let mut config = place.config();
            (config.durability, config.busy_timeout) = (durability, Duration::from_millis(1234));
            let storage = place.connect(config).await;
            // A write tells what is set on its connection.
            place
                .raw(
                    "DROP TABLE IF EXISTS storage_seen; CREATE TABLE storage_seen (name TEXT, setting TEXT, source TEXT); \
                     CREATE OR REPLACE FUNCTION storage_look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     INSERT INTO storage_seen SELECT name, setting, source FROM pg_settings; RETURN NULL; END $$; \
                     CREATE OR REPLACE TRIGGER storage_look AFTER INSERT OR UPDATE ON storage EXECUTE FUNCTION storage_look()",
                )
                .await;
            storage.put("k", "v").await.unwrap();
            let commit = if durability == Durability::Relaxed { "off" } else { "on" };
            for (name, setting, by_client) in [
                ("lock_timeout", "1234", true),
                ("default_transaction_isolation", "read committed", true),
                ("transaction_isolation", "read committed", false),
                ("synchronous_commit", commit, durability == Durability::Relaxed),
            ] {
                let source = if by_client { "source = 'client'" } else { "true" };
                let sql = format!(
                    "SELECT count(DISTINCT name) FROM storage_seen WHERE name = '{name}' AND setting = '{setting}' AND {source}"
                );
                assert_eq!(place.count(&sql).await, 1, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn settings_that_do_not_arrive() {
    for place in Place::servers().into_iter().filter(|place| place.engine == Engine::Postgres) {
        let proxy = Proxy::new(place.engine);
        // As with a pooler that is told to ignore them.
        proxy.replace("-c lock_timeout=5000", "-c lock_timeout=5001");
        assert_eq!(kind(Sql::connect(config(&proxy.uri(&place.table))).await), ErrorKind::Config);
    }
}

#[tokio::test]
async fn transactions_that_the_server_ends() {
    for place in Place::servers().into_iter().filter(|place| place.engine == Engine::Postgres) {
        let reader = format!("r{}", place.table);
        place
            .raw(&format!(
                "CREATE ROLE {reader} LOGIN PASSWORD 'hunter2' IN ROLE CURRENT_USER; \
                 ALTER ROLE {reader} SET idle_in_transaction_session_timeout = 100"
            ))
            .await;
        place.open().await.put("k", "v").await.unwrap();
        let mut own = config(&address(place.engine, &format!("{reader}:hunter2"), None));
        own.table = place.table.clone();
        let storage = place.connect(own).await;
        let tx = storage.begin().await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let e = tx.get("k").await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
        drop(tx);
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        place.raw(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}")).await;
    }
}

/// Everything that is logged by this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn passwords_and_values_are_never_said() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut said = String::new();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            for place in Place::servers() {
                let config = place.config();
                said += &format!("{config:?}");
                let storage = place.connect(config).await;
                let metadata = Metadata::new().tag("s3cret-tag").field("s3cret-name", "s3cret-text");
                storage.put_with("s3cret-key", "s3cret-value", PutOptions::new().metadata(metadata)).await.unwrap();
                storage.query_page(Query::new().equals("s3cret-name", "s3cret-text")).await.unwrap();
                place.raw("DROP TABLE storage_tags").await;
                said += &format!(
                    "{:?} {storage:?}",
                    storage.put("s3cret-key", "s3cret-value").await.map_err(|e| {
                        // The key is in the error on purpose, for whoever asked for it.
                        format!("{e:?}").replace("s3cret-key", "")
                    })
                );
                let wrong = address(place.engine, "storage:s3cret-password", None);
                said += &format!("{:?}", Sql::open(&wrong).await);
                said += &format!("{:?}", Sql::open(&format!("{}?sslmode=perhaps", wrong.replace(':', "::"))).await);
            }
        });
    });
    said += &String::from_utf8_lossy(&log.0.lock().unwrap());
    assert!(!said.contains("s3cret"), "{said}");
    for place in Place::servers() {
        let uri = place.engine.uri();
        let password = uri.split_once("://").unwrap().1.split(['@', ':']).nth(1).unwrap();
        // A password that is also the name of user, database and table shows nothing.
        assert!(password == "storage" || !said.contains(password), "{said}");
    }
}

#[tokio::test]
async fn tables_that_are_changed_meanwhile_are_a_conflict_that_passes() {
    for place in Place::servers().into_iter().filter(|place| place.engine == Engine::Postgres) {
        let mut config = place.config();
        config.max_connections = 1;
        let storage = place.connect(config).await;
        storage.put("k", "v").await.unwrap();
        for _ in 0..8 {
            assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        }
        // Prepared statements have another result now; the message of the server, which is in its own language, is not looked at.
        place.raw("ALTER TABLE storage ALTER COLUMN metadata TYPE varchar(9999)").await;
        let mut kinds = Vec::new();
        for _ in 0..8 {
            kinds.extend(storage.get("k").await.err().map(|e| e.kind()));
        }
        assert!(kinds.iter().all(|kind| *kind == ErrorKind::Conflict) && !kinds.is_empty(), "{kinds:?}");
    }
}
