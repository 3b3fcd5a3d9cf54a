//! The conformance suite: sharded over three of SQLite, redundant over three in memory.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::sync::Arc;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Key, Result, Storage, StorageBackend};
use storage_memory::Memory;
use storage_multi::{Redundant, RedundantOptions, Sharded, Store};
use storage_sql::{Config, Sql};

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn sharded(ns: Namespace) -> Result<Sharded> {
    let mut stores = Vec::new();
    for name in NAMES {
        let backend = Sql::connect(Config::sqlite(ns.dir().join(format!("{name}.db")))).await?;
        stores.push(Store::new(name, Arc::new(backend) as Arc<dyn StorageBackend>)?);
    }
    Sharded::open(stores).await
}

/// Over three in memory, from which values are being moved to four.
async fn moving(_: Namespace) -> Result<Sharded> {
    let stores: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|name| (name, Memory::new())).collect();
    let open = |count: usize| {
        let store = |(name, memory): &(&str, Memory)| Store::new(name, Arc::new(memory.clone()));
        stores[..count].iter().map(store).collect::<Result<_>>()
    };
    Sharded::open(open(3)?).await?;
    let marker = Storage::new(stores[0].1.clone()).get(".storage-multi/marker").await?.unwrap();
    let marker = String::from_utf8(marker.to_vec()).unwrap();
    let to = r#""epoch":3,"moving":{"phase":"moving","to":[["a",1],["b",1],["c",1],["d",1]]}"#;
    let marker = marker.replace(r#""epoch":0"#, to);
    for (name, memory) in &stores {
        let own = marker.replace(r#""store":"a""#, &format!(r#""store":"{name}""#));
        Storage::new(memory.clone()).put(".storage-multi/marker", own).await?;
    }
    Sharded::open(open(4)?).await
}

/// Over three in memory.
async fn redundant(_: Namespace) -> Result<Redundant> {
    let store = |name| Store::new(name, Arc::new(Memory::new()));
    Redundant::open(NAMES.into_iter().map(store).collect::<Result<_>>()?, RedundantOptions::new()).await
}

/// Writes metadata that nobody can read into the row of a key, in whichever store it is.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    for name in NAMES {
        let file = ns.dir().join(format!("{name}.db"));
        let mut raw = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        let sql = "UPDATE storage SET metadata = '{' WHERE entry_key = ?";
        sqlx::query(sql).bind(key.as_str().as_bytes()).execute(&mut raw).await.unwrap();
        raw.close().await.unwrap();
    }
    Ok(())
}

storage_conformance::main!(
    Target::new("sharded-sqlite", sharded)
        .requires(
            Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().queryable()
        )
        .damage(damage)
        .group("sharded"),
    Target::new("sharded-moving", moving)
        .volatile()
        .requires(Capabilities::new().atomic().conditional().conditional_delete().version_etags())
        .group("moving"),
    Target::new("redundant-memory", redundant)
        .volatile()
        .requires(Capabilities::new().atomic().version_etags().distributed())
        .group("redundant"),
);
