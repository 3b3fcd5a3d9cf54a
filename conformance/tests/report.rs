//! Reports survive the way through JSON, and what is broken is noticed.

use storage_conformance::{
    Namespace, Selection, Target, checks,
    report::{Report, Status},
    run,
};
use storage_core::ErrorKind;
use storage_memory::Memory;

fn of(target: &Target) -> Report {
    let mut selection = Selection::new(1);
    // Two groups are enough here.
    let left_out = checks().iter().filter(|check| !["basic", "info"].contains(&check.group));
    selection.disabled = left_out.map(|check| check.path()).collect();
    Report { seed: 1, backends: vec![run(target, &selection)] }
}

fn memory() -> Target {
    Target::new("memory", |_: Namespace| async { Ok(Memory::new()) }).volatile()
}

#[test]
fn json_comes_back_and_truncation_is_an_error() {
    let report = of(&memory());
    let json = report.to_json();
    assert_eq!(Report::from_json(&json), Ok(report));
    for end in [0, 1, json.len() / 2, json.len() - 1] {
        assert!(Report::from_json(&json[..end]).is_err(), "{end}");
    }
    assert!(Report::from_json(&json.replace("\"seed\"", "\"sead\"")).is_err());
}

#[test]
fn a_table_shows_failures_and_what_was_not_run() {
    let broken = Target::new("broken", |_: Namespace| async {
        Err::<Memory, _>(storage_core::Error::new(ErrorKind::Unavailable, "nobody listens; start the server"))
    });
    let absent = memory().needs_env("STORAGE_TEST_THAT_NOBODY_SETS");
    let report = of(&memory()).merge(of(&broken)).merge(of(&absent));
    assert!(report.has_failed());
    let (sound, broken, absent) = (&report.backends[0], &report.backends[1], &report.backends[2]);
    assert_eq!(sound.count(Status::Failed, None), 0);
    assert_eq!((sound.id.as_str(), broken.id.as_str()), ("memory", ""));
    assert_eq!(broken.count(Status::Failed, Some("basic")), sound.checks.iter().filter(|c| c.group == "basic").count());
    assert_eq!(absent.count(Status::NotRun, None), checks().len());
    let table = report.table();
    for text in [
        "basic",
        "FAILED broken::basic/roundtrip",
        "start the server",
        "check: What was put is what get returns",
        "STORAGE_TEST_THAT_NOBODY_SETS is not set",
    ] {
        assert!(table.contains(text), "{text} in\n{table}");
    }
}

#[test]
fn a_server_that_is_required_and_missing_is_a_failure() {
    let mut selection = Selection::new(1);
    selection.require_servers = true;
    let report = run(&memory().needs_env("STORAGE_TEST_THAT_NOBODY_SETS"), &selection);
    assert_eq!(report.count(Status::Failed, None), checks().len());
}

#[test]
fn a_panic_and_a_hang_are_failures() {
    let panics = Target::new("panics", |_: Namespace| async { unlucky() });
    let report = of(&panics);
    let reason = report.backends[0].checks.iter().find_map(|check| check.reason.clone().filter(|r| r.contains("luck")));
    assert!(reason.is_some());
    let hangs =
        Target::new("hangs", |_: Namespace| async { std::future::pending::<storage_core::Result<Memory>>().await });
    let mut selection = Selection::new(1);
    selection.time_limit = std::time::Duration::from_millis(20);
    selection.disabled = checks().iter().skip(2).map(|check| check.path()).collect();
    let report = run(&hangs, &selection);
    assert_eq!(report.count(Status::Failed, None), 2);
    assert!(report.checks.iter().any(|check| check.reason.as_ref().is_some_and(|reason| reason.contains("hung"))));
}

fn unlucky() -> storage_core::Result<Memory> {
    panic!("no such luck")
}
