//! Benchmarks: without a name those beside other libraries, which write docs/benchmarks.md and its plot.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use lexopt::{Arg, Parser, ValueExt};

use crate::{
    Result, services,
    shell::{cargo, root, step, target_dir, today},
};

const LAYERS: &str = "\
<!-- Written by `cargo xtask bench layers`. -->
# Benchmarks: layers

What a layer costs that has nothing to do: time and allocations of a call through it, and through none (`none`), on a value of 4 KiB in
memory. The calls go through `dyn StorageBackend`, as behind a URI; neither a recorder of metrics nor a subscriber of traces is installed.
The aim is 150 ns over `none` and one allocation; a test counts the allocation. Below: the layers that encrypt and that keep values beside the
libraries that do their work, in turns; the aim is 0.9 of ring's speed.
";

/// The medians and the allocations in what divan prints, as a table.
fn idle_table(text: &str) -> String {
    let mut table = "| call | layer | median | allocations |\n|---|---|---|---|\n".to_owned();
    let (mut call, mut row) = ("", None);
    let mut lines = text.lines().map(|line| line.trim_start_matches(['│', ' ', '├', '╰', '─']));
    while let Some(line) = lines.next() {
        let cells: Vec<&str> = line.split('│').map(str::trim).collect();
        match cells[..] {
            [name, _, "", ..] if !name.ends_with(':') => call = name,
            [first, _, median, ..] if first.ends_with("s") && median.ends_with("s") => {
                row = first.split_once("  ").map(|(name, _)| (name, median));
            }
            [first, ..] if first.starts_with("alloc:") => {
                let count = lines.next().and_then(|line| line.split_whitespace().next()).unwrap_or_default();
                if let Some((layer, median)) = row.take() {
                    table += &format!("| {call} | {layer} | {median} | {count} |\n");
                }
            }
            _ => {}
        }
    }
    table
}

const IPFS: &str = "\
<!-- Written by `cargo xtask bench --ipfs`. -->
# Benchmarks: IPFS

storage-ipfs beside what its node, a real Kubo on loopback, takes over RPC for the same bytes: `add` with `pin=true`, and `cat`. An example measures both in
turns, each value random and new: [speed.rs](../crates/storage-ipfs/examples/speed.rs). The index is in SQLite, in a file, once as it is by default and once
with `durability=relaxed`, which loses the last writes with the power, as Kubo's own default may. A cell is the median with the middle nine
tenths of the samples; with 16 in flight, the time of 320 operations divided by their number. *Times*: how often the node's own time that is. A get that was
*seen lately* is of a key that this process has put or read before: its block is asked for while the index is read. Reads are verified, and the node's
`cat` is not.
";

/// Runs the example that measures, and puts what it prints into docs/benchmarks-ipfs.md.
fn ipfs(quick: bool) -> Result<()> {
    services::up_one("kubo")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let mut bench = cargo(["run", "--release", "--package", "storage-ipfs", "--example", "speed"]);
    if quick {
        bench.args(["--", "--quick"]);
    }
    services::provide(&mut bench)?;
    let output = bench.stderr(Stdio::inherit()).output()?;
    let seen = String::from_utf8_lossy(&output.stdout);
    print!("{seen}");
    if !output.status.success() {
        return Err(format!("the benchmark failed ({})", output.status).into());
    }
    let path = root().join("docs/benchmarks-ipfs.md");
    // What was written by hand about the figures stays.
    let before = fs::read_to_string(&path).unwrap_or_default();
    let notes = before.find(NOTES).and_then(|at| before.get(at..)).unwrap_or(NOTES);
    let quick = if quick { " **A quick run**, with a fifth of the samples." } else { "" };
    let of = format!("Measured on {}, {cores} cores, load average before the run {load}.{quick}", today()?);
    fs::write(path, format!("{IPFS}\n{of}\n\n{}\n\n{}\n", seen.trim(), notes.trim()))?;
    Ok(())
}

/// How the part of docs/benchmarks-ipfs.md begins that is written by hand.
const NOTES: &str = "## What the difference is";

/// Runs the benchmark of the layers, and puts what it prints into docs/benchmarks-layers.md.
fn layers() -> Result<()> {
    let mut bench = cargo(["bench", "--package", "storage-layer", "--bench", "layers"]);
    let output = bench.stderr(Stdio::inherit()).output()?;
    let seen = String::from_utf8_lossy(&output.stdout);
    print!("{seen}");
    if !output.status.success() {
        return Err(format!("the benchmark failed ({})", output.status).into());
    }
    let head = format!("\nOn {}, with {} cores:\n", today()?, std::thread::available_parallelism()?);
    let (idle, beside) = seen.trim().split_once("\n\n").unwrap_or((&seen, ""));
    let table = idle_table(idle);
    // Trailing blanks carry nothing.
    let beside: String = beside.trim().lines().map(|line| format!("{}\n", line.trim_end())).collect();
    fs::write(root().join("docs/benchmarks-layers.md"), format!("{LAYERS}{head}\n{table}\n```text\n{beside}```\n"))?;
    Ok(())
}

pub(crate) fn run(mut args: Parser) -> Result<()> {
    let (mut options, mut sql, mut streams, mut mongodb) = (Vec::new(), false, false, false);
    let mut beside_node = false;
    let (mut dir, mut old): (Option<PathBuf>, Option<String>) = (None, None);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Value(name) if name == "layers" && options.is_empty() => {
                crate::no_more(args)?;
                return layers();
            }
            Arg::Value(name) => {
                return Err(format!("there is no benchmark `{}`; known is layers", name.display()).into());
            }
            Arg::Long("sql") => sql = true,
            Arg::Long("streams") => streams = true,
            Arg::Long("mongodb") => mongodb = true,
            Arg::Long("ipfs") => beside_node = true,
            Arg::Long("only") => options.extend(["--only".into(), args.value()?.string()?]),
            Arg::Long("quick") => options.push("--quick".into()),
            Arg::Long("dir") => dir = Some(PathBuf::from(args.value()?)),
            Arg::Long("against") => old = Some(args.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if beside_node {
        let quick = options.iter().all(|option| option == "--quick");
        return match quick && !(sql || streams || mongodb) && dir.is_none() && old.is_none() {
            true => ipfs(!options.is_empty()),
            false => Err("`--ipfs` takes no option but `--quick`".into()),
        };
    }
    if let Some(dir) = &dir {
        fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    if let Some(commit) = old {
        if sql || streams || mongodb || !options.is_empty() {
            return Err("`--against` takes no option but `--dir`".into());
        }
        return against(&commit, dir.unwrap_or_else(env::temp_dir));
    }
    options.extend(dir.into_iter().flat_map(|dir| ["--dir".into(), dir.display().to_string()]));
    if sql || streams {
        let (manifest, target) = (root().join("bench/opendal/Cargo.toml"), target_dir().join("opendal"));
        let mut build = cargo(["build", "--release", "--locked", "--manifest-path"]);
        step(build.arg(manifest).arg("--target-dir").arg(&target))?;
        options.extend(["--opendal".into(), target.join("release/bench-opendal").display().to_string()]);
        options.extend(sql.then(|| "--sql".into()));
        options.extend(streams.then(|| "--streams".into()));
        services::up_needed()?;
    }
    if mongodb {
        options.push("--mongodb".into());
        services::up_needed()?;
    }
    let mut bench = cargo(["run", "--release", "--package", "bench", "--"]);
    services::provide(&mut bench)?;
    step(bench.args(options))
}

/// Builds the same benchmark from this checkout and from an older commit, and lets the two take turns.
fn against(commit: &str, dir: PathBuf) -> Result<()> {
    let named =
        Command::new("git").current_dir(root()).args(["rev-parse", "--verify", "--quiet"]).arg(commit).output()?;
    if !named.status.success() {
        return Err(format!("git knows no commit `{commit}`").into());
    }
    let id = String::from_utf8(named.stdout)?.trim().to_owned();
    let old = target_dir().join("against").join(&id);
    if !old.exists() {
        fs::create_dir_all(&old)?;
        let mut archive =
            Command::new("git").current_dir(root()).args(["archive", &id]).stdout(Stdio::piped()).spawn()?;
        let files = archive.stdout.take().ok_or("git has no output")?;
        let unpacked = Command::new("tar").arg("-xC").arg(&old).stdin(files).status()?;
        if !archive.wait()?.success() || !unpacked.success() {
            return Err(format!("the commit {id} cannot be unpacked into {}", old.display()).into());
        }
    }
    // The older version is measured by what measures this one.
    let program = "bench/versions";
    let copied = Command::new("cp").arg("-R").arg(root().join(program)).arg(old.join("bench")).status()?;
    if !copied.success() {
        return Err(format!("{program} cannot be copied into {}", old.display()).into());
    }
    let new = release(&root().join(program), &root(), &target_dir().join("bench-versions"))?;
    let old = release(&old.join(program), &old, &old.join("target"))?;
    let mut compare = Command::new(new);
    let status = compare.arg("--old").arg(old).arg("--dir").arg(dir).status()?;
    if status.success() { Ok(()) } else { Err("this version is slower than the older one".into()) }
}

/// Builds a program of a checkout outside of its workspace, with the versions of others' crates that the workspace was tested with.
fn release(package: &Path, workspace: &Path, target: &Path) -> Result<PathBuf> {
    fs::copy(workspace.join("Cargo.lock"), package.join("Cargo.lock"))?;
    let mut build = cargo(["build", "--release", "--manifest-path"]);
    step(build.arg(package.join("Cargo.toml")).arg("--target-dir").arg(target))?;
    Ok(target.join("release/bench-versions"))
}
