//! The suite is tested: each saboteur fails exactly the checks that its table entry names, and passes the others. Right stores that
//! are unusual pass all.
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
use storage_config::Durability;
use storage_conformance::{
    Namespace, Selection, Target, answer, checks,
    report::{BackendReport, Status},
    run,
    saboteurs::{Base, FOREIGN, PASSWORD, SOUND, Saboteur, damage, damageable, saboteurs},
    unusual::{BYTES_ALONE, SLOW, UNUSUAL},
};
use storage_core::{Result, StorageBackend};
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

/// How many checks, besides its own, a saboteur must pass in a usual run.
const SAMPLE: usize = 6;

/// Checks that look at every kind of call at once, at calls dropped at random instants, at random keys or queries, and so find many
/// faults by chance. What they find beside what a table names is not counted.
const BROAD: [&str; 9] = [
    "model/",
    "races/",
    "isolation/",
    "dropped/",
    "keys/random_strings",
    "query/random_vs_oracle",
    "faults/failed_reads",
    "faults/failed_conditions",
    "faults/broken_streams",
];

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
        trial("unusual_backends_pass", unusual_backends_pass),
        trial("a_slow_backend_passes", a_slow_backend_passes),
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

/// A right store, unusual in one way at a time: nobody damages its values.
fn unusual_target(unusual: &Saboteur) -> Target {
    unusual.target(|namespace| async move { Ok(namespace.below(memory(namespace.clone(), SMALL))) }).one_process()
}

/// Each saboteur fails its own checks, and passes others: a few that the seed chooses, and with
/// `STORAGE_CONFORMANCE_MATRIX=1`, as `cargo xtask soak saboteurs` sets it, all; for a new check, `STORAGE_CONFORMANCE_MATRIX=group/check` says
/// which saboteurs fail it. `STORAGE_CONFORMANCE_TARGETS` names some saboteurs only.
fn each_saboteur_fails_exactly_its_checks() {
    let (mut saboteurs, next, wrong) = (saboteurs(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    if let Ok(names) = std::env::var("STORAGE_CONFORMANCE_TARGETS") {
        saboteurs.retain(|saboteur| names.split(',').any(|name| name == saboteur.name));
    }
    let matrix = std::env::var("STORAGE_CONFORMANCE_MATRIX").ok();
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(saboteur) = saboteurs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut selection = selection();
                    selection.disabled = match matrix.as_deref() {
                        Some("1") => BTreeSet::new(),
                        Some(others) => all_but(saboteur, &others.split(',').map(str::to_owned).collect()),
                        None => all_but(saboteur, &sample(saboteur, selection.seed)),
                    };
                    if saboteur.base == Base::Files {
                        selection.disabled.extend(set(&LARGE));
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
                        let (name, reasons) = (saboteur.name, reasons(&report, &expected).join("\n"));
                        wrong.lock().unwrap().push(format!("{name} => {seen:?}\n{reasons}"));
                    }
                }
            });
        }
    });
    let (others, seed) = (matrix.unwrap_or_else(|| format!("{SAMPLE} others")), selection().seed);
    println!("{} saboteurs, {others}, seed {seed}, {:?}", saboteurs.len(), started.elapsed());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} saboteurs fail other checks:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// What is left out where only the saboteur's own checks and these others run.
fn all_but(saboteur: &Saboteur, others: &BTreeSet<String>) -> BTreeSet<String> {
    let caught = set(saboteur.catches);
    let all = checks().iter().map(|check| check.path());
    all.filter(|path| !caught.contains(path) && !others.contains(path)).collect()
}

/// A few checks, which the seed chooses.
fn sample(saboteur: &Saboteur, seed: u64) -> BTreeSet<String> {
    let mut others: Vec<String> = checks().iter().map(|check| check.path()).collect();
    others.retain(|path| !LARGE.contains(&path.as_str()));
    let seed = saboteur.name.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    fastrand::Rng::with_seed(seed).shuffle(&mut others);
    others.into_iter().take(SAMPLE).collect()
}

fn a_sound_backend_passes() {
    let mut passed = BTreeSet::new();
    for target in [target(&SOUND), files_alone()] {
        // On files, which storage-fs has all checks on, only what needs a store that outlives its process.
        let mut left = selection();
        left.disabled.clone_from(&passed);
        let report = run(&target, &left);
        assert_eq!(report.failures(), BTreeSet::new());
        let ok = report.checks.iter().filter(|check| check.status == Status::Passed);
        passed.extend(ok.map(|check| check.path()));
    }
    let not_run: BTreeSet<String> =
        checks().iter().map(|check| check.path()).filter(|path| !passed.contains(path)).collect();
    // No capability is pinned here, and those that take a server run on the saboteur `is_behind_a_network`, which has no fault.
    let network =
        ["broken_reads", "broken_uploads", "busy_server", "lost_answers"].map(|check| format!("network/{check}"));
    let others =
        ["errors/unreachable_times_out", "faults/server_restart", "info/required_capabilities", "keys/refused_shapes"];
    let expected: BTreeSet<String> = others.map(str::to_owned).into_iter().chain(network).collect();
    assert_eq!(not_run, expected);
}

fn unusual_backends_pass() {
    let mut wrong = String::new();
    for unusual in UNUSUAL {
        let started = Instant::now();
        let report = run(&unusual_target(unusual), &selection());
        println!("{}: {:?}", unusual.name, started.elapsed());
        for reason in reasons(&report, &BTreeSet::new()) {
            wrong += &format!("{}: {reason}\n", unusual.name);
        }
    }
    let report = run(&unusual_target(&BYTES_ALONE).basic(), &selection());
    for reason in reasons(&report, &BTreeSet::new()) {
        wrong += &format!("bytes_alone: {reason}\n");
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // One that takes metadata and drops it is no right store, in whichever profile.
    let drops = saboteurs().into_iter().find(|saboteur| saboteur.name == "drops_metadata").unwrap();
    let mut only = selection();
    only.disabled =
        checks().iter().map(|check| check.path()).filter(|path| path != "metadata/accepted_is_kept").collect();
    for target in [target(&drops), target(&drops).basic()] {
        assert_eq!(run(&target, &only).failures(), set(&["metadata/accepted_is_kept"]));
    }
}

/// Only the checks with many calls in turn; with `STORAGE_CONFORMANCE_LATENCY_MS` all, on a store that is as slow as it says.
fn a_slow_backend_passes() {
    let (mut selection, mut target) = (selection(), unusual_target(&SLOW));
    if std::env::var_os("STORAGE_CONFORMANCE_LATENCY_MS").is_some() {
        selection.time_limit = Duration::from_secs(60);
        target = target.patience(Duration::from_secs(600));
    } else {
        let loops = LARGE.into_iter().chain(["cancellation/dropped_batch", "list/while_others_come_and_go"]);
        let loops: BTreeSet<String> = loops.map(str::to_owned).collect();
        selection.disabled = checks().iter().map(|check| check.path()).filter(|path| !loops.contains(path)).collect();
        // A check may take five times as long as a call.
        selection.time_limit = Duration::from_secs(10);
    }
    let report = run(&target, &selection);
    let wrong = reasons(&report, &BTreeSet::new());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
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

/// Why checks have failed of which it was not expected.
fn reasons(report: &BackendReport, expected: &BTreeSet<String>) -> Vec<String> {
    let failed = report.checks.iter().filter(|check| check.status == Status::Failed);
    let failed = failed.filter(|check| !expected.contains(&check.path()));
    failed.map(|check| format!("{}: {}", check.path(), check.reason.clone().unwrap_or_default())).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// One seed for all, so that what a saboteur fails does not depend on chance more than threads make it;
/// `STORAGE_CONFORMANCE_SEED` is another.
fn selection() -> Selection {
    let seed = std::env::var("STORAGE_CONFORMANCE_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut selection = Selection::new(seed.unwrap_or(20_240_229));
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
