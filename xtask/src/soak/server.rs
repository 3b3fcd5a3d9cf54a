//! Long runs of `storage-server`: load, kills, and cases of Schemathesis.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lexopt::{Arg, Parser, ValueExt};

use super::record;
use crate::{
    Result,
    shell::{cargo, step},
};

pub(super) const HEAD: &str = "
## storage-server

`cargo xtask soak server [--run load,kills,cases] [--seconds N] [--kills N] [--cases N]`. **load**: 64 clients read 4 KiB from memory, alone and then
beside 1,000 that send bodies by a few bytes a second; it fails if their p99 is more than doubled, resident memory grows by more than 64 MiB or a
descriptor is left. **kills**: the program over files and over SQLite is killed by -9 so many times each while a client writes; everything that
was acknowledged must be there. **cases**: Schemathesis makes at least so many requests from the OpenAPI document, in rounds with seeds of their own; it
fails on a failure of the server, on an answer that is not as described, and after an hour.

| run | date | outcome |
|---|---|---|
";

pub(super) fn run(mut args: Parser) -> Result<()> {
    let (mut runs, mut seconds, mut kills, mut cases) =
        (String::from("load,kills,cases"), 300_u64, 200_u64, 10_000_u64);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("run") => runs = args.value()?.string()?,
            Arg::Long("seconds") => seconds = args.value()?.parse()?,
            Arg::Long("kills") => kills = args.value()?.parse()?,
            Arg::Long("cases") => cases = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    for name in runs.split(',') {
        match name {
            "load" => load(seconds)?,
            "kills" => kill(kills)?,
            "cases" => schemathesis(cases)?,
            other => return Err(format!("there is no run `{other}`; known are load, kills and cases").into()),
        }
    }
    Ok(())
}

fn load(seconds: u64) -> Result<()> {
    step(&mut cargo(["build", "--release", "--package", "storage-server"]))?;
    let example = ["run", "--release", "--package", "storage-rest", "--example", "measure", "--", "load"];
    let (said, done) = said(cargo(example).arg(seconds.to_string()))?;
    if let Some(line) = said.lines().find(|line| line.contains("p99")) {
        record(5, "load", line.trim())?;
    }
    done
}

fn kill(kills: u64) -> Result<()> {
    let name = "kill_9_loses_nothing_that_was_acknowledged";
    let test = ["test", "--package", "storage-server", "--all-features", "--test", "program", "--", "--exact", name];
    let done = step(cargo(test).env("STORAGE_SERVER_KILLS", kills.to_string()));
    let outcome = if done.is_ok() { "nothing acknowledged was lost" } else { "failed" };
    record(5, "kills", &format!("{kills} on files, {kills} on SQLite: {outcome}"))?;
    done
}

/// Cases of one round: about 50 of each route, with those that come from the description itself.
const EXAMPLES: &str = "50";
/// A run of cases that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Rounds of Schemathesis, each with a seed of its own, until there are so many cases.
fn schemathesis(cases: u64) -> Result<()> {
    let (begun, first, mut counted, mut rounds) = (Instant::now(), std::process::id(), 0, 0);
    let outcome = loop {
        if begun.elapsed() > LONGEST {
            break Err(format!("only {counted} cases were made within {} minutes", LONGEST.as_secs() / 60));
        }
        let seed = first + rounds;
        let test = ["test", "--package", "storage-server", "--all-features", "--test", "openapi", "--", "--nocapture"];
        let mut test = cargo(test);
        test.env("STORAGE_TEST_SCHEMATHESIS_EXAMPLES", EXAMPLES)
            .env("STORAGE_TEST_SCHEMATHESIS_SEED", seed.to_string());
        let (said, done) = said(test.env("STORAGE_TEST_REQUIRE", "1"))?;
        rounds += 1;
        if let Err(e) = done {
            break Err(format!("a case failed, seed {seed}: {e}"));
        }
        let of_round = said
            .lines()
            .filter(|line| line.contains(" generated, "))
            .find_map(|line| line.trim().split(' ').next()?.replace(',', "").parse::<u64>().ok());
        let Some(of_round) = of_round else { break Err("Schemathesis does not say how many cases it made".into()) };
        counted += of_round;
        println!("{counted} of {cases} cases after {} s", begun.elapsed().as_secs());
        if counted >= cases {
            break Ok(());
        }
    };
    let seconds = begun.elapsed().as_secs();
    let told = format!("{counted} cases in {rounds} rounds, {seconds} s, first seed {first}: ");
    record(5, "cases", &(told + outcome.as_ref().err().map_or("every answer as described", String::as_str)))?;
    Ok(outcome?)
}

/// What a program says, and whether it succeeded.
fn said(command: &mut Command) -> Result<(String, Result<()>)> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", said.trim_end());
    let done = if output.status.success() { Ok(()) } else { Err(format!("it ended with {}", output.status).into()) };
    Ok((said, done))
}
