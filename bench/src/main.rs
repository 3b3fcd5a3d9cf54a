//! Measures storage-memory and storage-fs beside object_store and OpenDAL, and writes docs/benchmarks.md and .svg; with `--sql`
//! storage-sql beside its driver, and writes docs/benchmarks-sql.md; with `--streams` storage-s3, and writes docs/benchmarks-streams.md; with
//! `--mongodb` storage-mongodb beside its driver, and writes docs/benchmarks-mongodb.md.
#![allow(clippy::print_stdout, reason = "a command prints its result on standard output")]

mod subject;
mod ours;
mod object_stores;
mod operators;
mod measure;
mod mongo;
mod elsewhere;
mod groups;
mod machine;
mod notes;
mod report;
mod plot;
mod raw;
mod sql;
mod streams;
mod transfer;
mod wire;

use std::{env, fs, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

const HELP: &str = "\
bench [OPTIONS]

  --sql         storage-sql instead; the servers are those in STORAGE_TEST_POSTGRES and STORAGE_TEST_MARIADB
  --streams     large values in a bucket instead; the server is that in STORAGE_TEST_CEPH
  --mongodb     storage-mongodb instead; the server is that in STORAGE_TEST_SECANTUS, whose database `bench` is dropped
  --opendal PROGRAM  measures those services of OpenDAL that cannot be linked here; the program is that of bench/opendal
  --only TEXT   of the SQL rows only those whose `database: operation` contains this, printed and not written
  --quick       a fifth of the samples, to see that everything runs
  --dir DIR     where the files lie that are measured (default: the system's temporary directory)
  --out DIR     where benchmarks.md and benchmarks.svg are written (default: docs)
";

fn main() -> Result<()> {
    let (mut quick, mut sql, mut streams, mut mongodb, mut only) = (false, false, false, false, None);
    let mut opendal: Option<PathBuf> = None;
    let (mut dir, mut out) = (env::temp_dir(), PathBuf::from("docs"));
    let mut args = Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("quick") => quick = true,
            Arg::Long("sql") => sql = true,
            Arg::Long("streams") => streams = true,
            Arg::Long("mongodb") => mongodb = true,
            Arg::Long("transfer-mongodb") => {
                let library = args.value()?.string()?;
                let what = args.values()?.map(|value| value.string()).collect::<Result<Vec<_>, _>>()?;
                println!("{}", runtime()?.block_on(mongo::child(&library, &what))?);
                return Ok(());
            }
            // A sample of `--streams`, which starts this: the library, and what it is to do.
            Arg::Long("transfer") => {
                let library = args.value()?.string()?;
                let what = args.values()?.map(|value| value.string()).collect::<Result<Vec<_>, _>>()?;
                println!("{}", runtime()?.block_on(streams::child(&library, &what))?);
                return Ok(());
            }
            Arg::Long("opendal") => opendal = Some(args.value()?.parse()?),
            Arg::Long("only") => only = Some(args.value()?.string()?),
            Arg::Long("dir") => dir = args.value()?.parse()?,
            Arg::Long("out") => out = args.value()?.parse()?,
            Arg::Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let machine = machine::Machine::look(&dir)?;
    let runtime = runtime()?;
    if streams {
        let server = env::var("STORAGE_TEST_CEPH").map_err(|_| "STORAGE_TEST_CEPH does not say where the server is")?;
        let opendal = opendal.ok_or("`--streams` needs `--opendal PROGRAM`")?;
        let rows = runtime.block_on(streams::run(&server, &opendal, quick))?;
        fs::write(out.join("benchmarks-streams.md"), streams::markdown(&machine, &rows, quick))?;
        println!("{}", streams::table(&rows));
        return Ok(());
    }
    if mongodb {
        let server = env::var("STORAGE_TEST_SECANTUS");
        let server = server.map_err(|_| "STORAGE_TEST_SECANTUS does not say where the server is")?;
        let run = runtime.block_on(mongo::run(&server, quick))?;
        fs::write(out.join("benchmarks-mongodb.md"), mongo::markdown(&machine, &run, quick))?;
        println!("{}", mongo::tables(&run));
        return Ok(());
    }
    if sql {
        let plan = sql::Plan { dir, quick, only, opendal };
        let run = runtime.block_on(sql::run(&plan))?;
        if plan.only.is_none() {
            fs::write(out.join("benchmarks-sql.md"), sql::markdown(&machine, &run, quick))?;
        }
        println!("{}", report::tables(&run));
        return Ok(());
    }
    let run = runtime.block_on(groups::run(&dir, quick))?;
    fs::write(out.join("benchmarks.md"), report::markdown(&machine, &run, quick))?;
    fs::write(out.join("benchmarks.svg"), plot::svg(&run))?;
    println!("{}", report::tables(&run));
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
