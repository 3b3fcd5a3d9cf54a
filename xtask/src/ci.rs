//! Everything that must hold before a change lands, in the order in which it fails fastest.
//!
//! It looks at the default members of the workspace: all but the crates that compare with others, or run on us.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    Result, conformance, figures, guide, new_backend, services,
    shell::{cargo, metadata, root, step},
    tidy,
};

pub(crate) fn run() -> Result<()> {
    step(&mut cargo(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    figures::run(true)?;
    step(&mut cargo(["deny", "check", "bans", "licenses", "sources"]))?;
    step(&mut cargo(["clippy", "--all-targets", "--", "--deny", "warnings"]))?;
    step(&mut cargo(["clippy", "--all-targets", "--all-features", "--", "--deny", "warnings"]))?;
    features()?;
    let mut doc = cargo(["doc", "--no-deps"]);
    step(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    services::up_needed()?;
    let reports = root().join("target/conformance");
    // What an earlier run wrote must not be taken for this one's.
    let _ = fs::remove_dir_all(&reports);
    fs::create_dir_all(&reports)?;
    test(Some(&reports))?;
    step(&mut cargo(["test", "--package", "slatedb-on-storage"]))?;
    guide::run()?;
    new_backend::check()?;
    eprintln!("\nconformance of everything");
    let mut options = conformance::Options::all();
    options.done = Some(reports);
    options.out = Some(root().join("target/conformance.html"));
    let code = conformance::run(options)?;
    if code != std::process::ExitCode::SUCCESS {
        return Err("the conformance suite failed".into());
    }
    eprintln!("\nall of it holds");
    Ok(())
}

/// What brings backends and layers, without any of its features and with each of them alone: what compiles only beside another is
/// seen nowhere else.
fn features() -> Result<()> {
    let all = metadata(&root().join("Cargo.toml"), false)?;
    for package in ["storage-registry", "storage-sql"] {
        let of = |found: &&Value| found["name"] == package;
        let found = all["packages"].as_array().into_iter().flatten().find(of);
        let found = found.ok_or_else(|| format!("there is no package {package}"))?;
        let features = found["features"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        // A SQL backend without a database is refused by the compiler, and encrypted connections alone are none.
        let alone = |name: &&str| *name != "default" && (package, *name) != ("storage-sql", "tls");
        let none = (package != "storage-sql").then_some("");
        for feature in none.into_iter().chain(features.filter(alone)) {
            let lint = ["clippy", "--package", package, "--no-default-features", "--features", feature];
            step(cargo(lint).args(["--", "--deny", "warnings"]))?;
        }
    }
    Ok(())
}

/// The README's test command: unit, integration and conformance tests, and doc-tests. The reports of the suite go into the
/// directory.
pub(crate) fn test(reports: Option<&Path>) -> Result<()> {
    let mut tests = cargo(["test"]);
    if let Some(reports) = reports {
        tests.env("STORAGE_CONFORMANCE_REPORT", reports);
    }
    services::provide(&mut tests)?;
    step(&mut tests)?;
    services::report_missing(|_| true)
}
