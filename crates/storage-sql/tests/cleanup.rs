//! What the suite leaves on a server.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;
#[path = "support/target.rs"]
mod target;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use storage_conformance::{Namespace, Selection, Target, checks, report::Status, run};
use support::{Engine, Place};
use tokio::runtime::Builder;

/// Few, which between them write large values and old versions, and have a second namespace, also behind a proxy.
const CHECKS: [&str; 4] =
    ["stream/pipe", "versioning/old_can_be_read", "clear/own_namespace_only", "faults/server_restart"];

/// How many tables, sequences and indexes there are whose names begin so.
async fn named(engine: Engine, name: &str) -> i64 {
    let sql = match engine {
        Engine::Postgres => format!("SELECT count(*) FROM pg_class WHERE starts_with(relname, '{name}')"),
        _ => format!("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE '{name}%'"),
    };
    engine.number(&engine.uri(), sql).await
}

/// Runs the few checks on a server, and returns the namespaces that were opened there and those that were removed.
fn run_on(engine: Engine) -> [BTreeSet<String>; 2] {
    let names = Arc::new(Mutex::new([BTreeSet::new(), BTreeSet::new()]));
    let (opened, removed, variable) = (names.clone(), names.clone(), engine.variable());
    let target = Target::new("server", move |ns: Namespace| {
        opened.lock().unwrap()[0].insert(ns.name().to_owned());
        target::server(variable, ns, Some(10))
    });
    let removal = Arc::new(target::removal(variable));
    let target = target.cleanup(move |ns| {
        let (removed, removal) = (removed.clone(), removal.clone());
        async move {
            // Otherwise there would be nothing to see.
            assert!(named(engine, ns.name()).await > 8);
            removed.lock().unwrap()[1].insert(ns.name().to_owned());
            removal(ns).await
        }
    });
    let mut selection = Selection::new(1);
    selection.disabled = checks().iter().map(|check| check.path()).filter(|path| !CHECKS.contains(&&**path)).collect();
    let report = run(&target, &selection);
    assert_eq!(report.count(Status::Passed, None), CHECKS.len(), "{report:?}");
    names.lock().unwrap().clone()
}

#[test]
fn nothing_is_left_of_a_check_that_is_over() {
    for engine in Place::servers().into_iter().map(|place| place.engine) {
        let [opened, removed] = run_on(engine);
        assert_eq!(opened, removed, "{engine:?}");
        assert!(opened.len() > CHECKS.len(), "{opened:?}");
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        for name in opened {
            assert_eq!(runtime.block_on(named(engine, &name)), 0, "{engine:?} still has {name}");
        }
    }
}
