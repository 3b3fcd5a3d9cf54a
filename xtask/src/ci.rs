//! Everything that must hold before a change lands, in the order in which it fails fastest.
//!
//! It looks at the default members of the workspace: all but the crates that compare with others, or run on us. Each thing is
//! built once: all features together, but for what `features` builds with each of them alone.

use std::{fs, process::ExitCode, time::Instant};

use serde_json::Value;

use crate::{
    Result,
    budget::{self, step},
    conformance, figures, guide, new_backend, release, services,
    shell::{self, cargo, metadata, root, target_dir},
    testing, tidy,
};

pub(crate) fn run() -> Result<()> {
    let begun = Instant::now();
    let done = all();
    let report = budget::report(begun.elapsed());
    done.and(report)?;
    eprintln!("\nall of it holds");
    Ok(())
}

fn all() -> Result<()> {
    step("format, tidy, figures, licences", || {
        shell::step(&mut cargo(["fmt", "--all", "--check"]))?;
        tidy::run()?;
        figures::run(true)?;
        shell::step(&mut cargo(["deny", "check", "bans", "licenses", "sources"]))
    })?;
    step("clippy", || {
        shell::step(&mut cargo(["clippy", "--all-targets", "--all-features", "--", "--deny", "warnings"]))
    })?;
    step("features one by one", features)?;
    step("documentation", || {
        let mut doc = cargo(["doc", "--no-deps", "--all-features"]);
        shell::step(doc.env("RUSTDOCFLAGS", "--deny warnings"))
    })?;
    step("start servers", services::up_needed)?;
    let reports = target_dir().join("conformance");
    // What an earlier run wrote must not be taken for this one's.
    let _ = fs::remove_dir_all(&reports);
    fs::create_dir_all(&reports)?;
    testing::run(Some(&reports), &[])?;
    step("SlateDB", || shell::step(&mut cargo(["test", "--package", "slatedb-on-storage"])))?;
    step("packages as published", || release::publish(false))?;
    step("guide", guide::run)?;
    step("scaffold", new_backend::check)?;
    eprintln!("\nconformance of everything");
    let mut options = conformance::Options::all();
    options.done = Some(reports);
    options.out = Some(target_dir().join("conformance.html"));
    match conformance::run(options)? {
        ExitCode::SUCCESS => Ok(()),
        _ => Err("the conformance suite failed".into()),
    }
}

/// What brings backends and layers, without any of its features and with each of them alone: what compiles only beside another is
/// seen nowhere else.
fn features() -> Result<()> {
    // The registry is linted beside these, so that what others made is built once with the same features, not for each of them anew.
    let beside = ["storage-azure", "storage-conformance", "storage-gcs", "storage-object-store", "storage-s3"];
    let all = metadata(&root().join("Cargo.toml"), false)?;
    for package in ["storage-registry", "storage-sql"] {
        let of = |found: &&Value| found["name"] == package;
        let found = all["packages"].as_array().into_iter().flatten().find(of);
        let found = found.ok_or_else(|| format!("there is no package {package}"))?;
        let features = found["features"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        // A SQL backend without a database is refused by the compiler, and encrypted connections alone are none.
        let alone = |name: &&str| *name != "default" && (package, *name) != ("storage-sql", "tls");
        let none = (package == "storage-registry").then_some("");
        for feature in none.into_iter().chain(features.filter(alone)) {
            let mut lint = cargo(["clippy", "--quiet", "--package", package, "--no-default-features"]);
            let mut enabled = feature.to_owned();
            if package == "storage-registry" {
                lint.args(["--package", "storage-sql"]);
                beside.iter().for_each(|beside| _ = lint.args(["--package", beside]));
                enabled = if feature.is_empty() { enabled } else { format!("{package}/{feature},") };
                enabled += "storage-sql/sqlite,storage-sql/postgres,storage-sql/mysql,storage-sql/tls";
            }
            shell::step(lint.args(["--features", &enabled, "--", "--deny", "warnings"]))?;
        }
    }
    Ok(())
}
