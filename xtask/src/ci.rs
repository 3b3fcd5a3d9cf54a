//! Everything that must hold before a change lands, in the order in which it fails fastest.
//!
//! It looks at the default members of the workspace: all but the crates that compare with others, or run on us.

use std::{fs, path::Path};

use crate::{
    Result, conformance, figures, guide, new_backend, services,
    shell::{cargo, root, step},
    tidy,
};

pub(crate) fn run() -> Result<()> {
    step(&mut cargo(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    figures::run(true)?;
    step(&mut cargo(["deny", "check", "bans", "licenses", "sources"]))?;
    step(&mut cargo(["clippy", "--all-targets", "--", "--deny", "warnings"]))?;
    step(&mut cargo(["clippy", "--all-targets", "--all-features", "--", "--deny", "warnings"]))?;
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
