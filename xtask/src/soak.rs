//! Long runs, whose last results stand in `docs/soak.md`.

use std::{env, fs, path::PathBuf, process::Command};

use lexopt::{Arg, Parser, ValueExt};
use serde_json::Value;

use crate::{
    Result, services,
    shell::{cargo, metadata, root, step},
};

const HEAD: &str = "\
# Long runs

Written by `cargo xtask soak`; each row is the last run of that backend.

## Kill -9

`cargo xtask soak kill9 --rounds N --backend NAME` starts a process in which four writers put and delete values of 100 bytes to 3 MB with
metadata, whole and as streams. The process says through a pipe what it begins and, after the storage acknowledged it, what is
done. It is killed at a random moment, one time in sixteen while it opens the store; then the store is opened again, and every key
must hold the last acknowledged write or the one that was in flight, whole and with its metadata; the listing must agree, and nothing
staged may be left. The store is the same in all rounds. A run fails if less than 80 % of the kills interrupt a write in flight, which
is one that was begun and not acknowledged. A kill says nothing about power loss, which is a matter of syncs.

| backend | date | kills | with a write in flight | something was staged | acknowledged writes | violations | seed |
|---|---|---|---|---|---|---|---|
";

pub(crate) fn run(mut args: Parser) -> Result<()> {
    match args.value().ok().map(|name| name.string()).transpose()?.as_deref() {
        Some("kill9") => kill9(args),
        Some(name) => Err(format!("there is no long run `{name}`; known is kill9").into()),
        None => Err("say which long run; known is kill9".into()),
    }
}

fn kill9(mut args: Parser) -> Result<()> {
    let (mut rounds, mut backend, mut seed) = (1000_u64, String::from("fs"), None);
    let mut manifest = root().join("Cargo.toml");
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("rounds") => rounds = args.value()?.parse()?,
            Arg::Long("backend") => backend = args.value()?.string()?,
            Arg::Long("seed") => seed = Some(args.value()?.parse::<u64>()?),
            Arg::Long("manifest-path") => manifest = fs::canonicalize(args.value()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let package = package(&metadata(&manifest, false)?, &backend)?;
    let directory = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    fs::create_dir_all(&directory)?;
    let file = fs::canonicalize(directory)?.join(format!("kill9-{backend}.json"));
    // What an earlier run wrote must not be taken for this one's.
    let _ = fs::remove_file(&file);
    let mut test = cargo(["test", "--package", &package, "--test", "kill9", "--manifest-path"]);
    test.arg(&manifest).env("STORAGE_CONFORMANCE_ROUNDS", rounds.to_string());
    test.env("STORAGE_CONFORMANCE_REPORT", &file);
    if let Some(seed) = seed {
        test.env("STORAGE_CONFORMANCE_SEED", seed.to_string());
    }
    services::provide(&mut test)?;
    let done = step(&mut test);
    if let Ok(report) = fs::read_to_string(&file) {
        record(&serde_json::from_str(&report)?)?;
    }
    done
}

/// The package that declares this target for its conformance test and has a test `kill9`.
fn package(metadata: &Value, backend: &str) -> Result<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let listed = |list: &Value, wanted: &dyn Fn(&Value) -> bool| list.as_array().is_some_and(|l| l.iter().any(wanted));
    let found = packages.iter().find(|package| {
        let targets = &package["metadata"]["storage-conformance"]["targets"];
        listed(targets, &|name| name == backend) && listed(&package["targets"], &|target| target["name"] == "kill9")
    });
    let name = found.and_then(|package| package["name"].as_str());
    name.map(str::to_owned).ok_or_else(|| {
        let what = "add tests/kill9.rs to its package, with `storage_conformance::crash`";
        format!("no package has a test `kill9` and the conformance target `{backend}`: {what}").into()
    })
}

/// Puts the backend's row into the document, in place of an older one.
fn record(report: &Value) -> Result<()> {
    let path = root().join("docs/soak.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let backend = report["backend"].as_str().unwrap_or_default();
    let own = format!("| {backend} | ");
    let rows = before.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows: Vec<String> =
        rows.filter(|line| line.starts_with("| ") && !line.starts_with(&own)).map(str::to_owned).collect();
    let date = Command::new("date").args(["-u", "+%F"]).output()?;
    let date = String::from_utf8(date.stdout)?;
    let number = |name: &str| report[name].as_u64().unwrap_or_default();
    rows.push(format!(
        "{own}{} | {} | {} | {} | {} | {} | {} |",
        date.trim(),
        number("rounds"),
        number("in_flight"),
        number("with_leftovers"),
        number("acknowledged"),
        number("violations"),
        number("seed")
    ));
    rows.sort();
    fs::write(path, format!("{HEAD}{}\n", rows.join("\n")))?;
    Ok(())
}
