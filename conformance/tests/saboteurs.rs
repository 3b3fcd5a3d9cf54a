//! The suite is tested: each saboteur fails exactly the checks that its table entry names, and passes all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, LazyLock, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use storage_conformance::{
    Namespace, Selection, checks,
    report::Status,
    run,
    saboteurs::{SOUND, saboteurs},
};
use storage_core::Result;
use storage_memory::{Config, Memory};

/// Checks that no backend can fail, because the handle refuses what they try before a backend sees it. This list may only
/// become shorter.
const PROVEN_BY_THE_HANDLE: [&str; 4] = [
    "conditional/delete_if_absent_is_invalid",
    "keys/invalid_rejected",
    "metadata/nan_rejected",
    "query/invalid_input",
];

#[test]
fn each_saboteur_fails_exactly_its_checks() {
    let (saboteurs, next, wrong) = (saboteurs(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(saboteur) = saboteurs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run(&saboteur.target(memory), &selection());
                    let (seen, expected) = (report.failures(), set(saboteur.catches));
                    if seen != expected {
                        let reasons: Vec<String> = report
                            .checks
                            .iter()
                            .filter(|check| check.status == Status::Failed && !expected.contains(&check.path()))
                            .map(|check| format!("{}: {}", check.path(), check.reason.clone().unwrap_or_default()))
                            .collect();
                        let name = saboteur.name;
                        wrong.lock().unwrap().push(format!("{name} => {seen:?}\n{}", reasons.join("\n")));
                    }
                }
            });
        }
    });
    println!("{} saboteurs, {:?}", saboteurs.len(), started.elapsed());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} saboteurs fail other checks:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn a_sound_backend_passes() {
    let target = SOUND.target(memory);
    let report = run(&target, &selection());
    assert_eq!(report.failures(), BTreeSet::new());
    // One for each: not kept in files, no limit pinned, not streaming, nothing left to refuse.
    assert!(report.count(Status::NotRun, None) <= 5, "{:#?}", report.checks);
}

#[test]
fn every_check_can_fail() {
    let mut caught: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for saboteur in saboteurs() {
        for check in saboteur.catches {
            caught.entry((*check).to_owned()).or_default().push(saboteur.name);
        }
    }
    let known: BTreeSet<String> = checks().iter().map(|check| check.path()).collect();
    let unknown: Vec<&String> = caught.keys().filter(|check| !known.contains(*check)).collect();
    assert!(unknown.is_empty(), "the tables of saboteurs name checks that do not exist: {unknown:?}");
    let never: BTreeSet<String> = known.into_iter().filter(|check| !caught.contains_key(check)).collect();
    println!("checks that no saboteur fails: {never:?}");
    assert_eq!(never, set(&PROVEN_BY_THE_HANDLE));
}

#[test]
fn a_disabled_check_lets_its_saboteur_through() {
    let only_one = saboteurs().into_iter().filter(|saboteur| saboteur.catches.len() == 1).take(3);
    let mut tried = 0;
    for saboteur in only_one {
        let mut selection = selection();
        selection.disabled = set(saboteur.catches);
        let report = run(&saboteur.target(memory), &selection);
        assert_eq!(report.failures(), BTreeSet::new(), "{}", saboteur.name);
        let disabled = report.checks.iter().find(|check| saboteur.catches.contains(&check.path().as_str())).unwrap();
        assert_eq!((disabled.status, disabled.reason.as_deref()), (Status::NotRun, Some("disabled")));
        tried += 1;
    }
    assert_eq!(tried, 3);
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// One seed for all, so that what a saboteur fails does not depend on chance more than threads make it.
fn selection() -> Selection {
    let mut selection = Selection::new(20_240_229);
    selection.time_limit = Duration::from_secs(30);
    selection
}

/// The same store for the same namespace while any instance lives, with values of up to a megabyte: a short run.
#[expect(clippy::unwrap_used, reason = "a poisoned lock is a failed test")]
async fn memory(namespace: Namespace) -> Result<Arc<Memory>> {
    static STORES: LazyLock<Mutex<HashMap<String, Weak<Memory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap();
    let place = stores.entry(namespace.name().to_owned()).or_default();
    if let Some(store) = place.upgrade() {
        return Ok(store);
    }
    let mut config = Config::default();
    config.max_value = Some(1 << 20);
    let store = Arc::new(Memory::with_config(config));
    *place = Arc::downgrade(&store);
    Ok(store)
}
