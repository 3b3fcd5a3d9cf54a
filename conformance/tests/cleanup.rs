//! A target says how its namespaces are removed, and the suite does so for those of each check that has not failed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use storage_conformance::{
    Namespace, Selection, Target, checks,
    report::{BackendReport, Status},
    run,
};
use storage_core::{Error, ErrorKind, Result};
use storage_memory::Memory;

/// Checks with one namespace, with two, and with one behind a proxy.
const CHECKS: [&str; 3] = ["basic/roundtrip", "clear/own_namespace_only", "network/broken_reads"];
/// Where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

/// The names of namespaces, each as often as it came.
type Names = Arc<Mutex<Vec<String>>>;

/// A target that notes for which namespaces a store is opened.
fn target(opened: &Names) -> Target {
    let opened = opened.clone();
    let open = move |ns: Namespace| {
        let opened = opened.clone();
        async move {
            ns.address(NOWHERE)?;
            opened.lock().unwrap().push(ns.name().to_owned());
            Ok(Memory::new())
        }
    };
    Target::new("noted", open).volatile()
}

fn run_few(target: &Target) -> BackendReport {
    let mut selection = Selection::new(1);
    selection.disabled = checks().iter().map(|check| check.path()).filter(|path| !CHECKS.contains(&&**path)).collect();
    run(target, &selection)
}

fn sorted(names: &Names) -> Vec<String> {
    let mut names = names.lock().unwrap().clone();
    names.sort();
    names
}

#[test]
fn each_namespace_is_removed_once_and_directly() {
    let (opened, removed) = (Names::default(), Names::default());
    let noted = removed.clone();
    let target = target(&opened).cleanup(move |ns| {
        let noted = noted.clone();
        async move {
            // Not the address of a proxy.
            assert_eq!(ns.address(NOWHERE)?, NOWHERE);
            noted.lock().unwrap().push(ns.name().to_owned());
            Ok(())
        }
    });
    let report = run_few(&target);
    assert_eq!(
        report.count(Status::Passed, None),
        CHECKS.len(),
        "{:?}",
        report.checks.iter().filter(|check| check.status == Status::Failed).collect::<Vec<_>>()
    );
    let opened = sorted(&opened);
    // Those two have another one each.
    assert_eq!(opened.len(), CHECKS.len() + 2);
    assert_eq!(opened, sorted(&removed));
}

#[test]
fn what_cannot_be_removed_fails_no_check() {
    let fails = |_: Namespace| async { Err(Error::new(ErrorKind::PermissionDenied, "you may not drop tables")) };
    let panics = |_: Namespace| async { unlucky() };
    for target in [target(&Names::default()).cleanup(fails), target(&Names::default()).cleanup(panics)] {
        let report = run_few(&target);
        assert_eq!(
            report.count(Status::Passed, None),
            CHECKS.len(),
            "{:?}",
            report.checks.iter().filter(|check| check.status == Status::Failed).collect::<Vec<_>>()
        );
    }
}

fn unlucky() -> Result<()> {
    panic!("no such luck")
}

#[test]
fn after_a_failure_everything_stays_and_is_named() {
    let (opened, removed) = (Names::default(), Names::default());
    let noted = opened.clone();
    let target = Target::new("broken", move |ns: Namespace| {
        noted.lock().unwrap().push(ns.name().to_owned());
        async { Err::<Memory, _>(Error::new(ErrorKind::Unavailable, "nobody listens")) }
    });
    let noted = removed.clone();
    let target = target.cleanup(move |ns| {
        noted.lock().unwrap().push(ns.name().to_owned());
        async { Ok(()) }
    });
    let report = run_few(&target);
    let mut reasons: Vec<_> = report.checks.iter().filter(|check| check.status == Status::Failed).collect();
    assert_eq!(
        reasons.len(),
        CHECKS.len(),
        "{:?}",
        report.checks.iter().filter(|check| check.status == Status::Failed).collect::<Vec<_>>()
    );
    for name in opened.lock().unwrap().iter() {
        reasons.retain(|check| !check.reason.as_ref().unwrap().contains(&format!("left in place: {name}\n")));
    }
    assert!(reasons.is_empty(), "{reasons:?}");
    assert!(sorted(&removed).is_empty());
}
