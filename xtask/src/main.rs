//! The project's own commands: `cargo xtask help`.
#![allow(clippy::print_stdout, reason = "a command prints its result on standard output")]

mod bench;
mod budget;
mod ci;
mod conformance;
mod figures;
mod guide;
mod help;
mod new_backend;
mod release;
mod services;
mod shell;
mod soak;
mod testing;
mod tidy;

// The reports are shared with the suite as files, so that this crate does not build the suite.
#[path = "../../conformance/src/contract.rs"]
#[allow(dead_code, unreachable_pub, reason = "the suite's build script reads the page with it too")]
mod contract;
#[path = "../../conformance/src/html.rs"]
#[allow(unreachable_pub, reason = "the suite makes it public")]
mod html;
#[path = "../../conformance/src/junit.rs"]
#[allow(unreachable_pub, reason = "the suite makes it public")]
mod junit;
#[path = "../../conformance/src/report.rs"]
#[allow(dead_code, unreachable_pub, reason = "the suite uses all of it and makes it public, the commands use a part")]
mod report;

use std::{path::PathBuf, process::ExitCode};

use lexopt::{Arg, Parser, ValueExt};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const HELP: &str = "\
cargo xtask COMMAND

  test [TEXT…]                all tests and doc-tests of the workspace, or the programs whose `package/test` contains a text
  conformance [OPTIONS]       the conformance suite, and a table of its outcome
      --list                    which targets there are, and which of them this machine can run
      --backend A,B             only these (default: all that this machine can run)
      --format F                what to print: table, json, junit or html (default: table)
      --out FILE                also write the report there: .json, .xml (JUnit) or .html by its ending
      --manifest-path FILE      the Cargo.toml of a crate or workspace outside this one
      --seed N                  the seed of an earlier run
  services install [NAME…]    brings the servers that backends are tested on onto this machine; see docs/services.md
  services up [NAME…]         starts them and waits until they answer; prints STORAGE_TEST_… variables
  services down [NAME…]       stops them
  services status             which there are, and which run
  services env                the variables of those that run, for `eval`
  services restart|kill|pause|resume NAME
                              for tests: in order, as a crash would, connections that hang, and go on
  bench [OPTIONS]             memory and fs beside object_store and OpenDAL; writes docs/benchmarks.md and .svg
      --sql                     storage-sql beside sqlx and OpenDAL instead; writes docs/benchmarks-sql.md
      --streams                 large values in a bucket, storage-s3 beside both; writes docs/benchmarks-streams.md
      --mongodb                 storage-mongodb beside its driver and GridFS; writes docs/benchmarks-mongodb.md
      --ipfs                    storage-ipfs beside the node's own add and cat; writes docs/benchmarks-ipfs.md
      --only TEXT               with --sql: only rows whose `database: operation` contains this, printed and not written
      --against COMMIT          this checkout beside an older commit, in turns; fails if a row has become slower by 5 %
      --quick                   fewer samples
      --dir DIR                 where the files of the benchmark lie
  bench layers                time and allocations of idle layers
  soak suite [--backend A,B]  every check on every target (`test` and `ci` run a sample); see docs/soak-suite.md
  soak kill9 [OPTIONS]        kills a process that writes, and looks for what is lost; see docs/soak.md
      --rounds N                how often (default: 1000)
      --backend NAME            which backend (default: fs)
      --seed N                  the seed of an earlier run
      --manifest-path FILE      the Cargo.toml of a crate or workspace outside this one
  soak server [OPTIONS]       storage-server under load, killed, and met by Schemathesis; see docs/soak.md
  soak stream [OPTIONS]       writes and reads a large stream in bounded memory; see docs/soak.md
      --backend A,B             which backends (default: all that this machine can run)
      --mib N                   how large (default: 1024)
  soak slatedb [--rounds N]   runs SlateDB on AsObjectStore (default: 100 rounds); see docs/soak.md
  soak nonces [--writes N]    looks for data keys and nonces that repeat (default: 1,000,000 writes); see docs/soak.md
  soak drops [OPTIONS]        drops writes at random, and looks for those that land late; see docs/soak.md
      --backend A,B             which backends (default: all that this machine can run)
      --drops N                 how many writes (default: 10,000)
      --seed N                  the seed of an earlier run
  soak saboteurs              every saboteur of the suite on every check (about 4 minutes)
  soak slow                   every check on a store that needs 200 ms a call (about 30 minutes)
  figures [--check]           write (or compare) the figures in storage-core's README
  new-backend NAME            the scaffold of a backend, in crates/storage-NAME
      --standalone DIR          a crate outside of this workspace instead, in DIR, that depends on published versions
  guide                       the backend of docs/add-a-backend.md, put to the suite
  publish [--full]            packs all crates as for crates.io, without uploading; `--full` also builds what was packed
  semver [--since COMMIT]     breaking changes of the public API; needs cargo-semver-checks
  msrv                        builds everything with the oldest supported Rust; needs rustup
  advisories                  known vulnerabilities among the dependencies; needs the internet and cargo-deny
  scaffold                    what `new-backend` makes, in this workspace and outside of it, put to the suite
  tidy                        the rules of the house that a program can check
  ci                          everything that must hold before a change lands
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut words = std::env::args().skip(1);
    if let (Some(command), true) = (words.next(), words.any(|word| word == "--help" || word == "-h")) {
        println!("{}", help::of(&command, HELP));
        return Ok(ExitCode::SUCCESS);
    }
    let mut args = Parser::from_env();
    let Some(command) = args.next()? else {
        print!("{HELP}");
        return Ok(ExitCode::FAILURE);
    };
    let command = match command {
        Arg::Value(name) => name.string()?,
        Arg::Long("help") | Arg::Short('h') => "help".into(),
        other => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "help" => print!("{HELP}"),
        "test" => {
            let mut only = Vec::new();
            while let Some(arg) = args.next()? {
                match arg {
                    Arg::Value(text) => only.push(text.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            testing::run(None, &only)?;
        }
        "conformance" => return conformance::run(conformance::Options::parse(args)?),
        "services" => services::run(args)?,
        "bench" => bench::run(args)?,
        "soak" => soak::run(args)?,
        "figures" => figures::run(flag(args, "check")?)?,
        "new-backend" => {
            let (mut name, mut standalone) = (None, None);
            while let Some(arg) = args.next()? {
                match arg {
                    Arg::Long("standalone") => standalone = Some(PathBuf::from(args.value()?)),
                    Arg::Value(value) if name.is_none() => name = Some(value.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            let name = name.ok_or("new-backend needs a name, as in `cargo xtask new-backend my-store`")?;
            new_backend::run(&name, standalone.as_deref())?;
        }
        "guide" => {
            no_more(args)?;
            guide::run()?;
        }
        "publish" => release::publish(flag(args, "full")?)?,
        "semver" => {
            let mut since = None;
            while let Some(arg) = args.next()? {
                match arg {
                    Arg::Long("since") => since = Some(args.value()?.string()?),
                    other => return Err(other.unexpected().into()),
                }
            }
            release::semver(since.as_deref())?;
        }
        "msrv" => {
            no_more(args)?;
            release::msrv()?;
        }
        "advisories" => {
            no_more(args)?;
            release::advisories()?;
        }
        "scaffold" => {
            no_more(args)?;
            new_backend::check()?;
        }
        "tidy" => {
            no_more(args)?;
            tidy::run()?;
        }
        "ci" => {
            no_more(args)?;
            ci::run()?;
        }
        unknown => {
            let meant = help::nearest(unknown, HELP);
            let meant = meant.map_or(String::new(), |meant| format!(" (did you mean `{meant}`?)"));
            return Err(format!("there is no command `{unknown}`{meant}; see `cargo xtask help`").into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn no_more(mut args: Parser) -> Result<()> {
    match args.next()? {
        None => Ok(()),
        Some(arg) => Err(arg.unexpected().into()),
    }
}

fn flag(mut args: Parser, name: &str) -> Result<bool> {
    let mut set = false;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long(given) if given == name => set = true,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(set)
}
