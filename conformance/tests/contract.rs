//! `docs/contract.md` names every check, and none that does not exist.

use std::collections::BTreeSet;

use storage_conformance::checks;

#[test]
fn the_contract_names_the_checks_that_prove_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contract.md");
    let text = std::fs::read_to_string(path).unwrap();
    let existing: BTreeSet<String> = checks().iter().map(|check| format!("{}/{}", check.group, check.name)).collect();
    let groups: BTreeSet<&str> = checks().iter().map(|check| check.group).collect();
    let spans = text.split('`').skip(1).step_by(2);
    let named: BTreeSet<String> = spans
        .filter(|span| span.split_once('/').is_some_and(|(group, _)| groups.contains(group)))
        .map(str::to_owned)
        .collect();
    let unknown: Vec<_> = named.difference(&existing).collect();
    assert!(unknown.is_empty(), "the contract names checks that do not exist: {unknown:?}");
    let unnamed: Vec<_> = existing.difference(&named).collect();
    assert!(unnamed.is_empty(), "the contract does not name: {unnamed:?}");
}
