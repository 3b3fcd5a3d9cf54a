//! Two builds of this program, from two versions of the workspace, take turns: `bench-versions --old PROGRAM --dir DIR`
//! compares itself with another build, which it starts as `bench-versions --store NAME DIR` for each store.
//!
//! The operations and the clock are those of the benchmarks beside peers.
#![allow(clippy::print_stdout, reason = "a command prints its result on standard output")]

#[path = "../../src/elsewhere.rs"]
mod elsewhere;
#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../src/ours.rs"]
mod ours;
mod stores;
#[path = "../../src/subject.rs"]
mod subject;

use std::{env, fs, path::Path, process::ExitCode};

use measure::{Contestant, Measured, Row};
use subject::{Operation, TASKS};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// A row whose spreads do not touch may be slower by this much.
const SLOWER: f64 = 1.05;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--store", name, dir] => serve(name, Path::new(dir)).await.map(|()| ExitCode::SUCCESS),
        ["--old", program, "--dir", dir] => compare(Path::new(program), Path::new(dir)).await,
        _ => Err("call `cargo xtask bench --against COMMIT`".into()),
    }
}

/// Measures what each line asks for: an operation, how many tasks, and how often each runs it.
async fn serve(name: &str, dir: &Path) -> Result<()> {
    let store = stores::open(name, dir).await?;
    subject::fill_replaced(&store).await?;
    subject::fill_small(&store).await?;
    subject::fill_large(&store).await?;
    subject::check_written(&store).await?;
    println!("ready, lists");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        let [operation, tasks, times] = numbers[..] else { return Err(format!("`{line}` asks for nothing").into()) };
        let operation = *Operation::ALL.get(operation).ok_or("there is no such operation")?;
        println!("{}", store.sample(operation, tasks, times).await?.as_nanos());
    }
    Ok(())
}

/// Prints a table, and fails if a row has become slower.
async fn compare(old: &Path, dir: &Path) -> Result<ExitCode> {
    let new = env::current_exe()?;
    let mut slower = Vec::new();
    println!("| store | operation | in flight | old | new | new / old | samples |\n|---|---|---|---|---|---|---|");
    for name in stores::NAMES {
        let mut all: Vec<(&'static str, Box<dyn Contestant>)> = Vec::new();
        for (version, program) in [("old", old), ("new", &new)] {
            let place = dir.join(format!("{version}-{}", name.replace(' ', "-")));
            fs::create_dir_all(&place)?;
            let store = elsewhere::Elsewhere::start(program, "--store", name, &place.display().to_string()).await?;
            all.push((version, Box::new(Everything(store))));
        }
        for operation in stores::operations(name) {
            for tasks in [1, TASKS] {
                let row = measure::row(&all, operation, tasks, false).await?;
                let (line, worse) = compared(name, &row)?;
                println!("{line}");
                slower.extend(worse.then_some(line));
            }
        }
        drop(all);
        fs::remove_dir_all(dir.join(format!("old-{}", name.replace(' ', "-"))))?;
        fs::remove_dir_all(dir.join(format!("new-{}", name.replace(' ', "-"))))?;
    }
    if slower.is_empty() {
        println!("\nno row whose spreads lie apart is slower by more than 5 %");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nslower by more than 5 %, the spreads lying apart:\n{}", slower.join("\n"));
    Ok(ExitCode::FAILURE)
}

/// A line of the table, and whether the new version is slower beyond doubt.
fn compared(store: &str, row: &Row) -> Result<(String, bool)> {
    let of = |version| row.measured.iter().find(|measured| measured.library == version);
    let (old, new) = of("old").zip(of("new")).ok_or("two versions were to be measured")?;
    let ratio = new.median / old.median;
    let apart = new.spread.0 > old.spread.1 || new.spread.1 < old.spread.0;
    let note = if apart { "" } else { " (spreads overlap)" };
    let (operation, tasks, samples) = (row.operation, row.tasks, old.samples);
    let line =
        format!("| {store} | {operation} | {tasks} | {} | {} | {ratio:.2}{note} | {samples} |", cell(old), cell(new));
    Ok((line, apart && ratio > SLOWER))
}

fn cell(measured: &Measured) -> String {
    let micros = |nanoseconds: f64| format!("{:.2}", nanoseconds / 1e3);
    let (low, high) = measured.spread;
    format!("{} µs ({} – {})", micros(measured.median), micros(low), micros(high))
}

/// The other process knows every operation that it is asked for.
struct Everything(elsewhere::Elsewhere);

impl Contestant for Everything {
    fn sample(
        &self,
        operation: Operation,
        tasks: usize,
        times: usize,
    ) -> futures_util::future::BoxFuture<'_, Result<std::time::Duration>> {
        self.0.sample(operation, tasks, times)
    }
}
