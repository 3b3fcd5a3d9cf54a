//! What must hold before crates are published.

use crate::{
    Result,
    shell::{cargo, metadata, root, step, target_dir},
};

/// Packs every crate as it would be uploaded, in the order of their dependencies.
pub(crate) fn publish(full: bool) -> Result<()> {
    let mut publish = cargo(["publish", "--workspace", "--dry-run", "--allow-dirty", "--quiet"]);
    if !full {
        publish.arg("--no-verify");
    }
    step(publish.arg("--target-dir").arg(target_dir()))
}

/// Looks for breaking changes since a commit, or since what is published.
pub(crate) fn semver(since: Option<&str>) -> Result<()> {
    let mut semver = cargo(["semver-checks", "--workspace", "--all-features"]);
    if let Some(commit) = since {
        semver.args(["--baseline-rev", commit]);
    }
    step(&mut semver)
        .map_err(|e| format!("{e}; `cargo install --locked cargo-semver-checks` brings what is needed").into())
}

/// Builds everything with the Rust that `rust-version` in Cargo.toml names.
pub(crate) fn msrv() -> Result<()> {
    let all = metadata(&root().join("Cargo.toml"), false)?;
    let version = all["packages"].as_array().into_iter().flatten().find_map(|package| package["rust_version"].as_str());
    let version = version.ok_or("no package says `rust-version`")?;
    let mut check = std::process::Command::new("rustup");
    check.current_dir(root()).args(["run", "--install", version, "cargo", "check", "--workspace", "--all-features"]);
    step(check.arg("--target-dir").arg(target_dir().join("msrv")))
}

/// Asks the advisory database, which is on the internet.
pub(crate) fn advisories() -> Result<()> {
    step(&mut cargo(["deny", "check", "advisories"]))
}
