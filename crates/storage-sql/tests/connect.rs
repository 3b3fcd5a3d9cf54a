//! Connecting: configuration, the schema, and files that are not what they should be.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    process::Command,
    time::Duration,
};

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{ErrorKind, Metadata, PutOptions, Storage};
use storage_sql::{Config, Durability, Place, Sql, SqlFactory};
use support::kind;

#[tokio::test]
async fn uris_and_options() {
    let read = |uri: &str| Config::from_connection(&ConnectionConfig::new(uri));
    let config =
        read("sqlite:./a%3Fb.db?table=notes&durability=relaxed&busy_timeout=0.5&indexes=a,b&max_connections=3")
            .unwrap();
    assert_eq!(config.place, Place::Sqlite("./a?b.db".into()));
    assert_eq!((config.table.as_str(), config.durability), ("notes", Durability::Relaxed));
    assert_eq!((config.busy_timeout, config.max_connections), (Duration::from_millis(500), 3));
    assert_eq!(config.indexes, ["a", "b"].map(String::from).into());
    assert_eq!(read("sqlite:///var/x.db").unwrap().place, Place::Sqlite("/var/x.db".into()));
    let listed = ConnectionConfig::new("sqlite:x").option("indexes", vec!["a,b", "c"]);
    let listed = Config::from_connection(&listed).unwrap();
    assert_eq!(listed.indexes, ["a,b", "c"].map(String::from).into());

    for wrong in [
        "sqlite:",
        "sqlite::memory:",
        "oracle://host/db",
        "postgres:",
        "postgres://host",
        "postgres:///db",
        "postgres://host/",
        "mariadb://user:password@/db",
        "mysql://host/db?table=a-b",
        "postgres://host/db?path=x",
        "postgres://host/db?timeout=0",
        "postgres://host/db?versions=0",
        "sqlite:x?sslmode=require",
        "sqlite:x?timeout=3",
        "sqlite:x?table=",
        "sqlite:x?table=1a",
        "sqlite:x?table=a-b",
        "sqlite:x?table=a\"b",
        "sqlite:x?table=a;drop",
        "sqlite:x?table=%C3%A4",
        "sqlite:x?table=SQLite_x",
        "sqlite:x?max_connections=0",
        "sqlite:x?busy_timeout=-1",
        "sqlite:x?busy_timeout=4000",
        "sqlite:x?busy_timeout=NaN",
        "sqlite:x?chunk_size=10",
        "sqlite:x?chunk_size=999999999",
        "sqlite:x?durability=none",
        "sqlite:x?path=y",
        "sqlite:x?nonsense=1",
    ] {
        assert_eq!(kind(read(wrong)), ErrorKind::Config, "{wrong}");
    }
    let long = format!("sqlite:x?table={}", "a".repeat(49));
    assert_eq!(kind(read(&long)), ErrorKind::Config);
}

#[tokio::test]
async fn the_factory_connects() {
    let place = support::Place::new();
    let uri = format!("sqlite:{}?table=Order", place.path().display());
    let backend = SqlFactory.connect(&ConnectionConfig::new(uri), &StorageContext::default()).await.unwrap();
    let storage = Storage::from_arc(backend);
    storage.put("k", "v").await.unwrap();
    assert_eq!(place.count("SELECT count(*) FROM \"Order\"").await, 1);
}

#[tokio::test]
async fn a_path_is_never_a_uri() {
    let place = support::Place::new();
    let strange = place.path().with_file_name("file:a?mode=memory#b%20.db");
    Sql::connect(Config::sqlite(&strange)).await.unwrap();
    assert!(strange.is_file());
}

#[tokio::test]
async fn missing_and_misplaced_files() {
    let place = support::Place::new();
    let missing = Sql::connect(Config::sqlite(place.path().join("no/x.db"))).await;
    assert_eq!(kind(missing), ErrorKind::NotFound);
    let e = Sql::connect(Config::sqlite(place.path().with_file_name("nowhere").join("x.db"))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("nowhere"), "{e}");
    let directory = Sql::connect(Config::sqlite(place.path().parent().unwrap())).await;
    assert_eq!(kind(directory), ErrorKind::Config);
    // Nobody can create a file there, not even root.
    assert_eq!(kind(Sql::open("sqlite:/sys/x.db").await), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn files_that_are_no_databases() {
    let long = [b"not a database".as_slice(); 1000].concat();
    for content in [b"short".to_vec(), long] {
        let place = support::Place::new();
        fs::write(place.path(), &content).unwrap();
        assert_eq!(kind(Sql::connect(place.config()).await), ErrorKind::Corrupt);
        assert_eq!(fs::read(place.path()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_damaged_file() {
    let place = support::Place::new();
    let storage = place.open().await;
    for i in 0..200 {
        storage.put(format!("key {i}"), vec![b'x'; 2000]).await.unwrap();
    }
    storage.disconnect().await.unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    let len = bytes.len();
    bytes[4096 * 2..len].fill(0xa5);
    fs::write(place.path(), &bytes).unwrap();
    match Sql::connect(place.config()).await {
        Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{e:?}"),
        Ok(sql) => assert_eq!(kind(Storage::new(sql).get("key 7").await), ErrorKind::Corrupt),
    }
}

#[tokio::test]
async fn foreign_tables_are_left_alone() {
    for (foreign, table) in [
        ("CREATE TABLE storage (id INTEGER PRIMARY KEY, name TEXT)", "storage"),
        ("CREATE TABLE storage (id INTEGER PRIMARY KEY, name TEXT)", "STORAGE"),
        ("CREATE TABLE storage_meta (one, schema_version, sequence)", "storage"),
        (
            "CREATE TABLE storage_meta (one, schema_version, sequence); INSERT INTO storage_meta VALUES ('a', 'b', 'c')",
            "storage",
        ),
        (
            "CREATE TABLE storage_meta (one, schema_version, sequence); INSERT INTO storage_meta VALUES (1, 1, 4)",
            "storage",
        ),
        ("CREATE VIEW storage_tags AS SELECT 1", "storage"),
        ("CREATE TABLE t (a); CREATE INDEX storage ON t (a)", "storage"),
    ] {
        let place = support::Place::new();
        place.raw(foreign).await;
        let before = fs::read(place.path()).unwrap();
        let mut config = place.config();
        config.table = table.into();
        let e = Sql::connect(config).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{foreign}: {e:?}");
        assert!(e.message().contains("table"), "{e}");
        assert_eq!(fs::read(place.path()).unwrap(), before, "{foreign}");
        let mut other = place.config();
        other.table = "mine".into();
        Sql::connect(other).await.unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let place = support::Place::new();
    place.open().await.put("k", "v").await.unwrap();
    place.raw("UPDATE storage_meta SET schema_version = 3").await;
    let e = Sql::connect(place.config()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.message().contains("version 3"), "{e}");
    assert_eq!(place.count("SELECT schema_version FROM storage_meta").await, 3);
}

/// The variable that tells a process of the next test which file to write.
const CHILD: &str = "STORAGE_SQL_TEST_CHILD";

/// What a process of the next test does; on its own it does nothing.
#[tokio::test]
async fn child() {
    let Some(path) = env::var_os(CHILD) else {
        return;
    };
    let written = match Sql::connect(Config::sqlite(path)).await {
        Ok(sql) => Storage::new(sql).put("k", "v").await.map(drop),
        Err(e) => Err(e),
    };
    match written {
        Ok(()) => println!("written"),
        Err(e) => println!("refused: {:?}", e.kind()),
    }
}

/// Who may not write what is read-only, as root may.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn read_only_files_and_directories() {
    // The first shows that nothing else is in the way.
    for (directory_mode, file_mode, expected) in [
        (0o755, 0o644, "written"),
        (0o755, 0o444, "refused: PermissionDenied"),
        (0o555, 0o644, "refused: PermissionDenied"),
    ] {
        let place = support::Place::new();
        place.open().await.disconnect().await.unwrap();
        let path = place.path();
        let directory = path.parent().unwrap();
        let is_root = fs::metadata(directory).unwrap().uid() == 0;
        for (target, mode) in [(path.as_path(), file_mode), (directory, directory_mode)] {
            if is_root {
                chown(target, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            fs::set_permissions(target, Permissions::from_mode(mode)).unwrap();
        }
        // By this name, because another user may not reach the directory in which the program lies.
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, &path).current_dir("/");
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output();
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        let output = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(output.lines().any(|line| line.contains(expected)), "{directory_mode:o} {file_mode:o}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_connect_at_once() {
    for _ in 0..5 {
        let place = support::Place::new();
        let connecting: Vec<_> = (0..8)
            .map(|i| {
                let mut config = place.config();
                config.indexes = [format!("field {i}")].into();
                tokio::spawn(async move {
                    let storage = Storage::new(Sql::connect(config).await?);
                    storage.put(format!("key {i}"), "v").await
                })
            })
            .collect();
        let mut etags = std::collections::BTreeSet::new();
        for task in connecting {
            etags.insert(task.await.unwrap().unwrap().etag.unwrap());
        }
        assert_eq!(etags.len(), 8);
        assert_eq!(place.count("SELECT count(*) FROM storage_meta").await, 1);
        assert_eq!(place.count("SELECT count(*) FROM storage_indexes").await, 8);
    }
}

#[tokio::test]
async fn two_tables_in_one_file() {
    let place = support::Place::new();
    let mut config = place.config();
    config.table = "other".into();
    let (one, other) = (place.open().await, place.connect(config).await);
    one.put("k", "1").await.unwrap();
    other.put("k", "2").await.unwrap();
    one.clear().await.unwrap();
    assert!(!one.has("k").await.unwrap());
    assert!(other.has("k").await.unwrap());
}

#[tokio::test]
async fn a_table_that_is_gone() {
    let place = support::Place::new();
    let storage = place.open().await;
    place.raw("DROP TABLE storage").await;
    assert_eq!(kind(storage.get("k").await), ErrorKind::NotFound);
    assert_eq!(kind(storage.put("k", "v").await), ErrorKind::NotFound);
}

#[tokio::test]
async fn fields_are_indexed_for_good_and_for_everybody() {
    let place = support::Place::new();
    let pages = || PutOptions::new().metadata(Metadata::new().field("pages", 3).field("x", 1));
    let early = place.open().await;
    early.put_with("before", "v", pages()).await.unwrap();
    let mut config = place.config();
    config.indexes = ["pages".to_owned()].into();
    let late = place.connect(config).await;
    // The first instance does not know of the index, its writes are found all the same.
    early.put_with("after", "v", pages()).await.unwrap();
    let found = late.query_page(storage_core::Query::new().equals("pages", 3)).await.unwrap();
    assert_eq!(found.entries.len(), 2);
    assert_eq!(place.count("SELECT count(*) FROM storage_fields WHERE field IS NOT NULL").await, 2);
}

#[tokio::test]
async fn foreign_rows_are_skipped_in_listings() {
    let place = support::Place::new();
    let storage = place.open().await;
    storage.put("a", "v").await.unwrap();
    place
        .raw(
            "INSERT INTO storage (version, nonce, entry_key, size, created_at, updated_at, metadata, data, described, leftovers) \
         VALUES (1000, 1, x'ff00', 0, 0, 0, '{}', x'', 0, 0), (1001, 1, x'62ff', 0, 0, 0, '{}', x'', 0, 0)",
        )
        .await;
    storage.put("c", "v").await.unwrap();
    use futures_util::TryStreamExt;
    let keys: Vec<_> = storage.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    let found = storage.query_page(storage_core::Query::new()).await.unwrap();
    assert_eq!(found.entries.len(), 2);
}
