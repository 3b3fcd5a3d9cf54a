//! How many statements each operation costs: counted by a proxy in front of a server, and for a file by the crate's own trace.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::TryStreamExt;
use storage_core::{Condition, ListOptions, Metadata, PutOptions, Query, Storage};
use storage_sql::Config;
use support::{Engine, Place, proxy::Proxy};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

/// What an operation may cost on a file, and on a server. On a file, each statement is a call of a function.
struct Cost {
    file: u64,
    server: u64,
}

/// Measures everything. `count` is the number of statements up to now.
async fn measure(place: &Place, config: Config, count: impl Fn() -> u64) {
    let storage: Storage = place.connect(config).await;
    let described = || PutOptions::new().metadata(Metadata::new().tag("t").field("n", 1));
    let items = |n: usize| (0..n).map(|i| (format!("batch/{i:04}"), "v")).collect::<Vec<_>>();
    storage.put_batch(items(1000)).await.unwrap();
    storage.put_with("described", "v", described()).await.unwrap();
    let etag = storage.put("k", "v").await.unwrap().etag.unwrap();
    macro_rules! costs {
        ($what:literal, $file:literal, $server:literal, $operation:expr) => {{
            let before = count();
            let _ = $operation.await.unwrap();
            let (cost, seen) = (Cost { file: $file, server: $server }, count() - before);
            let expected = if place.engine == Engine::Sqlite { cost.file } else { cost.server };
            assert_eq!(seen, expected, "{} on {:?}", $what, place.engine);
        }};
    }
    costs!("get", 1, 1, storage.get("k"));
    costs!("get of nothing", 1, 1, storage.get("nothing"));
    costs!("stat", 1, 1, storage.stat("k"));
    costs!("put", 4, 1, storage.put("k", "w"));
    costs!("create", 4, 1, storage.put_with("new", "v", PutOptions::new().condition(Condition::IfAbsent)));
    let stale = PutOptions::new().condition(Condition::IfMatch(etag));
    let again = PutOptions::new().condition(Condition::IfAbsent);
    costs!("creation of what is there", 4, 1, async {
        Ok::<_, ()>(storage.put_with("new", "v", again).await.unwrap_err())
    });
    // What a single statement does not do is tried once more with the entry locked, which then says why.
    costs!("stale update", 4, 4, async { Ok::<_, ()>(storage.put_with("k", "v", stale).await.unwrap_err()) });
    costs!("put with a field and a tag", 6, 5, storage.put_with("d", "v", described()));
    costs!("the same again", 8, 7, storage.put_with("d", "v", described()));
    costs!("delete", 3, 1, storage.delete("k"));
    costs!("clear", 3, 1, storage.clear_prefix("nobody/"));
    costs!("batch of 1,000 gets", 2, 2, storage.get_batch(items(1000).into_iter().map(|(key, _)| key)));
    costs!("batch of 1,000 puts", 8, 6, storage.put_batch(items(1000)));
    costs!("batch of 1,000 deletes", 6, 6, storage.delete_batch(items(1000).into_iter().map(|(key, _)| key)));
    costs!("first page of a listing", 1, 1, storage.list_with(ListOptions::new()));
    costs!("query", 1, 1, async { storage.query(Query::new().equals("n", 1)).await?.try_collect::<Vec<_>>().await });
}

#[tokio::test]
async fn on_servers() {
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        let config = storage_config::ConnectionConfig::new(proxy.uri(&place.table));
        let mut config = Config::from_connection(&config).unwrap();
        // More would begin with statements of their own, whenever they are opened.
        config.max_connections = 1;
        measure(&place, config, || proxy.statements()).await;
    }
}

#[derive(Clone, Default)]
struct Statements(Arc<AtomicU64>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(u64::from(event.metadata().target() == "storage_sql::statement"), Ordering::SeqCst);
    }
}

#[test]
fn on_a_file() {
    let statements = Statements::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(statements.clone()), || {
        let place = Place::new();
        runtime.block_on(measure(&place, place.config(), || statements.0.load(Ordering::SeqCst)));
    });
}
