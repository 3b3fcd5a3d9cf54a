//! Each check proves a rule of `docs/contract.md`, and the rules name no check that does not exist. Files are looked for by
//! `cargo xtask tidy`.

use std::collections::BTreeSet;

use storage_conformance::checks;

#[allow(unreachable_pub, reason = "the build script and `cargo xtask tidy` include it too")]
#[path = "../src/contract.rs"]
mod contract;

#[test]
fn the_contract_names_the_checks_that_prove_it() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/contract.md")).unwrap();
    let rows = contract::rows(&page).unwrap();
    let existing: BTreeSet<String> = checks().iter().map(|check| check.path()).collect();
    let unknown = rows.iter().flat_map(|row| &row.proofs).filter(|proof| contract::is_check(proof));
    let unknown: Vec<&String> = unknown.filter(|check| !existing.contains(*check)).collect();
    assert!(unknown.is_empty(), "the contract names checks that do not exist: {unknown:?}");
    let unnamed: Vec<String> = checks().iter().filter(|c| c.promises.is_empty()).map(|c| c.path()).collect();
    assert!(unnamed.is_empty(), "no rule of the contract names {unnamed:?}; add a row, or name it in one");
}
