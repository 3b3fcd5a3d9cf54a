//! The figures in storage-core's README: dependencies, lines of code, build time.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::Value;

use crate::{
    Result,
    shell::{cargo, metadata, root, target_dir},
};

const BEGIN: &str = "<!-- figures: written by `cargo xtask figures` -->";
const END: &str = "<!-- end of figures -->";

pub(crate) fn run(check: bool) -> Result<()> {
    let readme = root().join("crates/storage-core/README.md");
    let text = fs::read_to_string(&readme)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("the README has no figures")?;
    let (old, after) = rest.split_once(END).ok_or("the figures have no end")?;
    let (direct, total) = dependencies()?;
    let lines = lines_of_code(&root().join("crates/storage-core/src"))?;
    let counted = format!(
        "\n| figure | value |\n|---|---|\n| direct dependencies | {direct} |\n\
         | dependencies in total | {total} |\n| lines of code, without comments and blank lines | {lines} |\n"
    );
    if check {
        // The build time depends on the machine; only what can be counted is compared.
        return if old.trim_start().starts_with(counted.trim_start()) {
            Ok(())
        } else {
            Err("the figures in storage-core's README are out of date; run `cargo xtask figures`".into())
        };
    }
    let seconds = build_time()?;
    let cores = std::thread::available_parallelism()?;
    let timed = format!("| clean build (`cargo build`, {cores} cores) | {seconds:.1} s |\n");
    fs::write(readme, format!("{before}{BEGIN}\n{counted}{timed}\n{END}{after}").replace("-->\n\n\n", "-->\n\n"))?;
    println!("{counted}{timed}");
    Ok(())
}

/// Direct ones, and all crates that are built for this platform besides storage-core, procedural macros included.
fn dependencies() -> Result<(usize, usize)> {
    let manifest = root().join("crates/storage-core/Cargo.toml");
    let metadata = metadata(&manifest, false)?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let core = packages.iter().find(|p| p["name"] == "storage-core");
    let direct = core.and_then(|p| p["dependencies"].as_array()).into_iter().flatten();
    // Those of features are for whoever turns them on.
    let direct = direct.filter(|d| d["kind"] == Value::Null && d["optional"] == false).count();
    let tree =
        cargo(["tree", "--package", "storage-core", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
            .output()?;
    let tree = String::from_utf8(tree.stdout)?;
    let names = tree.lines().filter_map(|line| line.split(" (").next());
    let all: BTreeSet<&str> = names.map(str::trim).filter(|name| !name.is_empty()).collect();
    Ok((direct, all.len().saturating_sub(1)))
}

fn lines_of_code(dir: &Path) -> Result<usize> {
    let mut lines = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            lines += lines_of_code(&path)?;
        } else {
            let text = fs::read_to_string(path)?;
            let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
            lines += text.lines().filter(code).count();
        }
    }
    Ok(lines)
}

fn build_time() -> Result<f64> {
    let dir: PathBuf = target_dir().join("figures");
    let _ = fs::remove_dir_all(&dir);
    let mut build = cargo(["build", "--quiet", "--package", "storage-core", "--target-dir"]);
    build.arg(&dir);
    let begun = Instant::now();
    if !build.status()?.success() {
        return Err("storage-core does not build".into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(dir)?;
    Ok(seconds)
}
