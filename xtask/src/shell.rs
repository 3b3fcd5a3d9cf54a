//! Running cargo and finding the workspace.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{self, Command},
    time::Instant,
};

use serde_json::Value;

use crate::Result;

/// The root of the checkout that this command was called in. It is looked for at run time: a `target` that several checkouts
/// share holds one program for all of them.
pub(crate) fn root() -> PathBuf {
    let is_root = |dir: &&Path| dir.join("xtask/Cargo.toml").is_file() && dir.join("Cargo.lock").is_file();
    // Cargo says where the package is that it runs: this one, or the test that calls this program.
    let from_cargo = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = from_cargo.into_iter().chain(env::current_dir());
    let found = starts.filter_map(|start| start.ancestors().find(is_root).map(Path::to_owned)).next();
    found.unwrap_or_else(|| {
        eprintln!("xtask: call it inside a checkout of the workspace");
        process::exit(1)
    })
}

/// Where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    // A relative path counts from where cargo is called, which is the root.
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// A cargo command in the workspace's root.
pub(crate) fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    // What cargo has told this program of its own package. Build scripts that look at it, as ring's, would run again, and all that is
    // built upon them would be built again, each time somebody changes from `cargo test` to `cargo xtask` and back.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Says what is run, runs it, says how long it took and what it left of the disk, and fails if it does.
pub(crate) fn step(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default().to_string_lossy();
    let line = format!("{program} {}", words.join(" "));
    eprintln!("\n$ {line}");
    let started = Instant::now();
    let status = command.status()?;
    let free = free().map_or_else(|| "?".into(), |mib| format!("{:.1}", mib / 1024.0));
    let told = format!("`{line}` took {:.0?}; {free} GiB of the disk are free", started.elapsed());
    if status.success() {
        eprintln!("{told}");
        return Ok(());
    }
    Err(format!("{told}; it failed ({status})").into())
}

/// How many MiB the disk of the build has left. A full one shows in other ways: servers that hang, output that ends midway.
fn free() -> Option<f64> {
    let output = Command::new("df").args(["-Pm"]).arg(root()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// The date in UTC, as `2026-11-22`.
pub(crate) fn today() -> Result<String> {
    let date = Command::new("date").args(["-u", "+%F"]).output()?;
    Ok(String::from_utf8(date.stdout)?.trim().to_owned())
}

/// What `cargo metadata` says of the workspace that this manifest belongs to.
pub(crate) fn metadata(manifest: &Path, dependencies: bool) -> Result<Value> {
    let mut command = cargo(["metadata", "--format-version", "1", "--manifest-path"]);
    command.arg(manifest);
    if !dependencies {
        command.arg("--no-deps");
    }
    let output = command.output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cannot read {}: {why}", manifest.display()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
