//! Long runs, whose last results stand in `docs/soak.md`.

mod server;
mod suite;

use std::{fs, time::Instant};

use lexopt::{Arg, Parser, ValueExt};
use serde_json::Value;

use crate::{
    Result, conformance,
    report::{CheckReport, Status},
    services,
    shell::{cargo, metadata, root, step, target_dir, today},
};

const KNOWN: &str = "suite, kill9, stream, slatedb, nonces, drops, server, saboteurs and slow";

const HEAD: &str = "\
# Long runs

Written by `cargo xtask soak`; each row is the last run of that backend.

## Kill -9

`cargo xtask soak kill9 --rounds N --backend NAME` starts a process in which four writers put, rename and delete values of 100 bytes to 3 MB with
metadata, whole and as streams. The process says through a pipe what it begins and, after the storage acknowledged it, what is
done. It is killed at a random moment, one time in sixteen while it opens the store; then the store is opened again, and every key
must hold the last acknowledged write or the one that was in flight, whole and with its metadata; the listing must agree, and nothing
staged may be left. The store is the same in all rounds. A run fails if less than 80 % of the kills interrupt a write in flight, which
is one that was begun and not acknowledged. A kill says nothing about power loss, which is a matter of syncs.

| backend | date | kills | with a write in flight | something was staged | acknowledged writes | violations | seed |
|---|---|---|---|---|---|---|---|
";

const STREAMS: &str = "
## Large streams

`cargo xtask soak stream --backend A,B --mib N` runs the check `stream/bounded_memory` with a larger stream: a process writes and reads that
many MiB in pieces of 64 KiB, and may grow by 40 MiB at most.

| backend | date | MiB | seconds to write and read | outcome |
|---|---|---|---|---|
";

const SLATEDB: &str = "
## SlateDB

`cargo xtask soak slatedb --rounds N` runs SlateDB on `AsObjectStore` (integrations/slatedb): each round opens the database, compares
everything in it with a model, writes or deletes 5,000 of 20,000 keys, compares again, and closes it, while tables are compacted.

| backend | date | rounds | seconds | outcome |
|---|---|---|---|---|
";

const NONCES: &str = "
## Data keys and nonces

`cargo xtask soak nonces --writes N` encrypts the same value under the same key so many times, by each algorithm in turn, and compares the
data keys and the nonces that wrap them.

| layer | date | writes | outcome |
|---|---|---|---|
";

pub(crate) use suite::old;

const DROPS: &str = "
## Dropped writes

`cargo xtask soak drops --backend A,B --drops N` runs the checks `dropped/…` with so many writes in all: each is dropped at a random instant,
followed at once by another call on the same key, which is answered, and looked for afterwards.

| backend | date | dropped writes | seconds | late writes |
|---|---|---|---|---|
";

pub(crate) fn run(mut args: Parser) -> Result<()> {
    match args.value().ok().map(|name| name.string()).transpose()?.as_deref() {
        Some("suite") => suite::run(args),
        Some("kill9") => kill9(args),
        Some("stream") => stream(args),
        Some("slatedb") => slatedb(args),
        Some("nonces") => nonces(args),
        Some("drops") => drops(args),
        Some("server") => server::run(args),
        Some("saboteurs") => suite(args, "each_saboteur_fails_exactly_its_checks", "MATRIX", "1"),
        Some("slow") => suite(args, "a_slow_backend_passes", "LATENCY_MS", "200"),
        Some(name) => Err(format!("there is no long run `{name}`; known are {KNOWN}").into()),
        None => Err(format!("say which long run; known are {KNOWN}").into()),
    }
}

fn stream(mut args: Parser) -> Result<()> {
    let mut options = conformance::Options::all();
    let mut mib = 1024;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("backend") => {
                options.backends = args.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Arg::Long("mib") => mib = args.value()?.parse()?,
            Arg::Long("manifest-path") => options.manifest = fs::canonicalize(args.value()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    options.stream_mib = Some(mib);
    let report = conformance::report(&options)?;
    for backend in &report.backends {
        for check in &backend.checks {
            let outcome = match (check.status, &check.reason) {
                (Status::Passed, _) => "passed".to_owned(),
                (Status::Failed, _) => "failed".to_owned(),
                (Status::NotRun, reason) => format!("not run: {}", reason.as_deref().unwrap_or_default()),
            };
            let seconds = check.duration_ms / 1000;
            record(1, &backend.name, &format!("{mib} | {seconds} | {outcome}"))?;
        }
    }
    println!("{}", report.table().trim_end());
    if report.has_failed() { Err("a stream took more memory than it may".into()) } else { Ok(()) }
}

fn drops(mut args: Parser) -> Result<()> {
    let mut options = conformance::Options::all();
    let mut drops = 10_000;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("backend") => {
                options.backends = args.value()?.string()?.split(',').map(str::to_owned).collect();
            }
            Arg::Long("drops") => drops = args.value()?.parse()?,
            Arg::Long("seed") => options.seed = Some(args.value()?.parse()?),
            Arg::Long("manifest-path") => options.manifest = fs::canonicalize(args.value()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    options.drops = Some(drops);
    let report = conformance::report(&options)?;
    for backend in &report.backends {
        let seconds = backend.checks.iter().map(|check| check.duration_ms).sum::<u64>() / 1000;
        let failed: Vec<&str> = names(&backend.checks, Status::Failed);
        let not_run: Vec<&str> = names(&backend.checks, Status::NotRun);
        let outcome = match (failed.is_empty(), not_run.is_empty()) {
            (true, true) => "0".to_owned(),
            (true, false) => format!("0; not run: {}", not_run.join(", ")),
            (false, _) => format!("found by {}", failed.join(", ")),
        };
        record(4, &backend.name, &format!("{drops} | {seconds} | {outcome}"))?;
    }
    println!("{}", report.table().trim_end());
    if report.has_failed() { Err("a write that was dropped landed behind a later call".into()) } else { Ok(()) }
}

fn names(checks: &[CheckReport], status: Status) -> Vec<&str> {
    checks.iter().filter(|check| check.status == status).map(|check| check.name.as_str()).collect()
}

/// A test of the suite itself, at length.
fn suite(args: Parser, test: &str, variable: &str, value: &str) -> Result<()> {
    crate::no_more(args)?;
    let mut run = cargo(["test", "--package", "storage-conformance", "--test", "saboteurs", "--"]);
    step(run.args(["--exact", test]).env(format!("STORAGE_CONFORMANCE_{variable}"), value))
}

fn slatedb(mut args: Parser) -> Result<()> {
    let mut rounds = 100_u32;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("rounds") => rounds = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let test = ["test", "--release", "--package", "slatedb-on-storage"];
    step(cargo(test).arg("--no-run"))?;
    let mut all = Ok(());
    for (backend, name) in [("fs", "runs_on_files"), ("sqlite", "runs_on_sqlite")] {
        let begun = Instant::now();
        let mut run = cargo(test);
        let done = step(run.args(["--", "--exact", name]).env("STORAGE_SLATEDB_ROUNDS", rounds.to_string()));
        let outcome = if done.is_ok() { "passed" } else { "failed" };
        record(2, backend, &format!("{rounds} | {} | {outcome}", begun.elapsed().as_secs()))?;
        all = all.and(done);
    }
    all
}

fn nonces(mut args: Parser) -> Result<()> {
    let mut writes = 1_000_000_u64;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("writes") => writes = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let mut test = cargo(["test", "--package", "storage-layer-encrypt", "--test", "nonces"]);
    let done = step(test.env("STORAGE_TEST_WRITES", writes.to_string()));
    let outcome = if done.is_ok() { "all distinct" } else { "failed" };
    record(3, "encrypt", &format!("{writes} | {outcome}"))?;
    done
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
    let directory = target_dir();
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
        let report: Value = serde_json::from_str(&report)?;
        let number = |name: &str| report[name].as_u64().unwrap_or_default().to_string();
        let columns = ["rounds", "in_flight", "with_leftovers", "acknowledged", "violations", "seed"].map(number);
        record(0, report["backend"].as_str().unwrap_or_default(), &columns.join(" | "))?;
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
fn record(section: usize, backend: &str, row: &str) -> Result<()> {
    let path = root().join("docs/soak.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let own = format!("| {backend} | ");
    let mut sections = before.split("\n## ").skip(1).map(|text| {
        let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        rows.filter(|line| line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>()
    });
    let mut tables: [Vec<String>; 6] = std::array::from_fn(|_| sections.next().unwrap_or_default());
    // What stands behind is written by hand.
    let by_hand = before.match_indices("\n## ").nth(tables.len()).map_or("", |(at, _)| &before[at..]);
    let date = today()?;
    tables[section].retain(|line| !line.starts_with(&own));
    tables[section].push(format!("{own}{date} | {row} |"));
    tables.iter_mut().for_each(|rows| rows.sort());
    let [kills, streams, slatedb, nonces, drops, servers] =
        tables.map(|rows| rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let all = format!("{HEAD}{kills}{STREAMS}{streams}{SLATEDB}{slatedb}{NONCES}{nonces}{DROPS}{drops}");
    fs::write(path, format!("{all}{}{servers}{by_hand}", server::HEAD))?;
    Ok(())
}
