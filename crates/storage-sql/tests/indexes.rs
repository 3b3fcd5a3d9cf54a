//! Queries over many entries are answered with the indexes, as the databases themselves explain.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use storage_core::{Comparison, Entry, Filter, Query};
use support::{Engine, Place};
use tracing_subscriber::prelude::*;

/// The statement that the crate itself runs for this query, as its trace shows it.
#[derive(Clone, Default)]
struct Statements(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "storage_sql::statement" {
            event.record(&mut Texts(&mut self.0.lock().unwrap()));
        }
    }
}

struct Texts<'t>(&'t mut Vec<String>);

impl tracing::field::Visit for Texts<'_> {
    fn record_str(&mut self, _: &tracing::field::Field, value: &str) {
        self.0.push(value.to_owned());
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}

/// Fills the tables with 100,000 entries, each with a field of its own value, by the database itself.
async fn fill(place: &Place) {
    let bytes = |text: &str| match place.engine {
        Engine::Sqlite => format!("CAST({text} AS BLOB)"),
        Engine::Postgres => format!("CAST(CAST({text} AS TEXT) AS BYTEA)"),
        Engine::MariaDb => format!("CAST({text} AS BINARY)"),
    };
    let numbers = match place.engine {
        Engine::Postgres => "generate_series(1, 100000) AS n (i)".to_owned(),
        Engine::MariaDb => "(SELECT seq AS i FROM seq_1_to_100000) n".into(),
        Engine::Sqlite => {
            "(WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 100000) SELECT i FROM c) n"
                .into()
        }
    };
    let padded = if place.engine == Engine::Sqlite { "printf('%06d', i)" } else { "lpad(CAST(i AS CHAR(6)), 6, '0')" };
    // What is filled in is right, so MariaDB need not look at each row.
    let unchecked = match place.engine {
        Engine::MariaDb => "SET foreign_key_checks = 0; SET unique_checks = 0; ",
        _ => "",
    };
    let (key, data) = (bytes(&format!("concat('k', {padded})")), bytes("''"));
    place
        .raw(&format!(
            "INSERT INTO storage (version, nonce, entry_key, size, created_at, updated_at, metadata, data, described, leftovers) \
             SELECT i, i, {key}, 0, i, i, '{{\"fields\":{{\"n\":0}}}}', {data}, 1, 0 FROM {numbers}"
        ))
        .await;
    for (idx, name, kind, values) in [
        (0, "n", 4, "version, NULL, NULL, NULL"),
        (1, "x", 5, "NULL, version + 0.5, NULL, NULL"),
        (2, "s", 6, "NULL, NULL, entry_key, entry_key"),
    ] {
        let name = bytes(&format!("'{name}'"));
        place
            .raw(&format!(
                "{unchecked}INSERT INTO storage_fields (entry, idx, name, kind, int_value, float_value, text_value, head, field) \
                 SELECT id, {idx}, {name}, {kind}, {values}, (SELECT id FROM storage_indexes WHERE name = {name}) FROM storage"
            ))
            .await;
    }
    let tag = bytes("concat('tag', version)");
    place
        .raw(&format!("INSERT INTO storage_tags (entry, idx, tag, head) SELECT id, 0, {tag}, {tag} FROM storage"))
        .await;
    match place.engine {
        Engine::MariaDb => place.raw("ANALYZE TABLE storage, storage_fields, storage_tags").await,
        _ => place.raw("ANALYZE").await,
    };
}

#[test]
fn queries_over_100_000_entries_use_the_indexes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let statements = Statements::default();
    let subscriber = tracing_subscriber::registry().with(statements.clone());
    tracing::subscriber::with_default(subscriber, || runtime.block_on(indexes_are_used(&statements)));
}

async fn indexes_are_used(statements: &Statements) {
    for place in Place::all() {
        let mut config = place.config();
        config.indexes = ["n", "x", "s"].map(String::from).into();
        let storage = place.connect(config).await;
        fill(&place).await;
        let dates = SystemTime::UNIX_EPOCH + Duration::from_micros(99_998);
        for (query, index, found) in [
            (Query::new().equals("n", 4711), "by_field", 1),
            (Query::new().field("n", Comparison::Greater, 99_990), "by_field", 10),
            (Query::new().equals("x", 4711.5), "by_field", 1),
            (Query::new().equals("s", "k004711"), "by_field", 1),
            (Query::new().field("s", Comparison::GreaterOrEqual, "k099999"), "by_field", 2),
            (Query::new().any_tag(["tag4711", "tag5"]), "by_tag", 2),
            (Query::new().all_tags(["tag4711"]), "by_tag", 1),
            (Query::new().filter(Filter::ModifiedAfter(dates)), "by_updated_at", 2),
            (Query::new().filter(Filter::CreatedAfter(dates)), "by_created_at", 2),
        ] {
            statements.0.lock().unwrap().clear();
            let begun = std::time::Instant::now();
            let answer: Vec<Entry> = storage.query(query.clone()).await.unwrap().try_collect().await.unwrap();
            assert_eq!(answer.len(), found, "{query:?} on {:?}", place.engine);
            let elapsed = begun.elapsed();
            let statement = statements.0.lock().unwrap().pop().unwrap();
            let plan = place.plan(&statement, &query).await;
            assert!(plan.contains(index), "{query:?} on {:?}:\n{plan}", place.engine);
            eprintln!("{:?}: {index} in {elapsed:?}", place.engine);
        }
    }
}
