//! The suite is tested: each saboteur fails exactly the checks that its table entry names, and passes all others.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it has seen")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    process::ExitCode,
    sync::{
        Arc, LazyLock, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use storage_conformance::{
    Namespace, Selection, Target, answer, checks,
    report::Status,
    run,
    saboteurs::{Base, FOREIGN, PASSWORD, SOUND, Saboteur, damage, damageable, saboteurs},
};
use storage_core::{Durability, Result, StorageBackend};
use storage_fs::Fs;
use storage_memory::Memory;

/// Checks that no backend can fail, because the handle refuses what they try before a backend sees it. This list may only
/// become shorter.
const PROVEN_BY_THE_HANDLE: [&str; 4] = [
    "conditional/delete_if_absent_is_invalid",
    "keys/invalid_rejected",
    "metadata/nan_rejected",
    "query/invalid_input",
];

/// Checks of thousands of entries, which take long through files and show nothing about processes.
const LARGE: [&str; 6] = [
    "batch/over_native_limit_2500",
    "clear/many",
    "counts/of_entries",
    "counts/of_entries_with_metadata",
    "list/ten_thousand_no_loss_no_duplicates",
    "metadata/etag_changes_x1000",
];

/// Checks that look at every kind of call at once, and so find many faults by chance. What they find beside what a table names is
/// not counted.
const BROAD: [&str; 5] =
    ["races/", "isolation/", "faults/failed_reads", "faults/failed_conditions", "faults/broken_streams"];

/// The broad checks that the saboteur's table does not name.
fn broad(saboteur: &Saboteur) -> BTreeSet<String> {
    let caught = set(saboteur.catches);
    let paths = checks().iter().map(|check| check.path());
    paths.filter(|path| BROAD.iter().any(|broad| path.starts_with(broad)) && !caught.contains(path)).collect()
}

fn main() -> ExitCode {
    // Some checks run this program again, as another process.
    let targets: Vec<Target> = saboteurs().iter().chain([&SOUND]).map(target).chain([files_alone()]).collect();
    if let Some(code) = answer(&targets) {
        return code;
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("each_saboteur_fails_exactly_its_checks", each_saboteur_fails_exactly_its_checks),
        trial("a_sound_backend_passes", a_sound_backend_passes),
        trial("every_check_can_fail", every_check_can_fail),
        trial("a_disabled_check_lets_its_saboteur_through", a_disabled_check_lets_its_saboteur_through),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The saboteur around the base it asks for.
fn target(saboteur: &Saboteur) -> Target {
    let in_memory = |target: Target| {
        target
            .one_process()
            .secret(PASSWORD)
            .foreign(|namespace| async move {
                namespace.stored_below()?.put(format!("{FOREIGN}\u{fffd}"), "").await.map(drop)
            })
            .stored_by_others(|namespace, key, value| async move {
                namespace.stored_below()?.put(key, value).await.map(drop)
            })
            .damage(|namespace, key| async move { damage(&**namespace.stored_below()?.backend(), &key).await })
    };
    match saboteur.base {
        Base::Memory => in_memory(saboteur.target(|namespace| below_memory(namespace, SMALL))),
        Base::Large => in_memory(saboteur.target(|namespace| below_memory(namespace, None))),
        Base::Files => saboteur.target(files),
    }
}

fn each_saboteur_fails_exactly_its_checks() {
    let (saboteurs, next, wrong) = (saboteurs(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(saboteur) = saboteurs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut selection = selection();
                    if saboteur.base == Base::Files {
                        selection.disabled = set(&LARGE);
                    }
                    selection.disabled.extend(broad(saboteur));
                    let mut report = run(&target(saboteur), &selection);
                    let (mut seen, expected) = (report.failures(), set(saboteur.catches));
                    // Nobody may have met in a race; what is never found fails all the same.
                    for _ in 0..2 {
                        if seen == expected || !seen.is_subset(&expected) {
                            break;
                        }
                        println!("{} was not found by all of its checks at once", saboteur.name);
                        selection.seed += 1;
                        report = run(&target(saboteur), &selection);
                        seen.extend(report.failures());
                    }
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

fn a_sound_backend_passes() {
    let mut passed = BTreeSet::new();
    for target in [target(&SOUND), files_alone()] {
        let report = run(&target, &selection());
        assert_eq!(report.failures(), BTreeSet::new());
        let ok = report.checks.iter().filter(|check| check.status == Status::Passed);
        passed.extend(ok.map(|check| check.path()));
    }
    let not_run: BTreeSet<String> =
        checks().iter().map(|check| check.path()).filter(|path| !passed.contains(path)).collect();
    // No capability is pinned here, and those that take a server run on the saboteur `is_behind_a_network`, which has no fault.
    let network =
        ["broken_reads", "broken_uploads", "busy_server", "lost_answers"].map(|check| format!("network/{check}"));
    let others = ["errors/unreachable_times_out", "faults/server_restart", "info/required_capabilities"];
    let expected: BTreeSet<String> = others.map(str::to_owned).into_iter().chain(network).collect();
    assert_eq!(not_run, expected);
}

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

fn a_disabled_check_lets_its_saboteur_through() {
    let only_one = saboteurs().into_iter().filter(|saboteur| saboteur.catches.len() == 1).take(3);
    let mut tried = 0;
    for saboteur in only_one {
        let mut selection = selection();
        selection.disabled = set(saboteur.catches);
        selection.disabled.extend(broad(&saboteur));
        let report = run(&target(&saboteur), &selection);
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

/// Values of up to a megabyte: a short run.
const SMALL: Option<u64> = Some(1 << 20);

/// The same store for the same namespace while any instance lives.
fn memory(namespace: Namespace, max_value: Option<u64>) -> Arc<Memory> {
    static STORES: LazyLock<Mutex<HashMap<String, Weak<Memory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap();
    let place = stores.entry(namespace.name().to_owned()).or_default();
    if let Some(store) = place.upgrade() {
        return store;
    }
    let mut config = storage_memory::Config::default();
    config.max_value = max_value;
    let store = Arc::new(Memory::with_config(config));
    *place = Arc::downgrade(&store);
    store
}

async fn below_memory(namespace: Namespace, max_value: Option<u64>) -> Result<impl StorageBackend> {
    Ok(damageable(Arc::new(namespace.below(memory(namespace.clone(), max_value)))))
}

/// Files that several processes share.
async fn files(namespace: Namespace) -> Result<Fs> {
    let mut config = storage_fs::Config::default();
    config.root = namespace.dir().to_owned();
    config.durability = Durability::Relaxed;
    Fs::connect(config).await
}

fn files_alone() -> Target {
    Target::new("files", files)
}
