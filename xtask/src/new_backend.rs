//! The scaffold of a backend: a crate that compiles, and whose suite says what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result, conformance,
    shell::{cargo, metadata, root, step, target_dir},
};

const FILES: [(&str, &str); 8] = [
    ("Cargo.toml", include_str!("../templates/backend/Cargo.toml.txt")),
    ("README.md", include_str!("../templates/backend/README.md.txt")),
    ("CHANGELOG.md", include_str!("../templates/backend/CHANGELOG.md.txt")),
    ("src/lib.rs", include_str!("../templates/backend/lib.rs.txt")),
    ("src/config.rs", include_str!("../templates/backend/config.rs.txt")),
    ("src/backend.rs", include_str!("../templates/backend/backend.rs.txt")),
    ("src/error.rs", include_str!("../templates/backend/error.rs.txt")),
    ("tests/conformance.rs", include_str!("../templates/backend/conformance.rs.txt")),
];

/// A crate of this workspace, or one outside of it in this directory.
pub(crate) fn run(name: &str, standalone: Option<&Path>) -> Result<()> {
    let dir = match standalone {
        Some(dir) => dir.to_owned(),
        None => root().join("crates").join(format!("storage-{name}")),
    };
    write(name, &dir)?;
    println!("{} is there. Now:", dir.display());
    println!("  1. write the six methods in src/backend.rs");
    if standalone.is_some() {
        alone(&dir)?;
        println!("  2. cargo test     says what is missing");
    } else {
        println!("  2. cargo xtask conformance --backend {name}     says what is missing");
        println!("  3. cargo xtask tidy");
    }
    Ok(())
}

/// Makes the manifest one that inherits nothing: versions in place of paths.
fn alone(dir: &Path) -> Result<()> {
    let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
    let find = |name: &str| {
        let value = workspace.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        value.ok_or_else(|| format!("Cargo.toml of the workspace does not say `{name}`"))
    };
    let version = find("version")?;
    let path = dir.join("Cargo.toml");
    let text = fs::read_to_string(&path)?.replace("[lints]\nworkspace = true\n\n", "");
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(match line.strip_suffix(".workspace = true") {
            None => line.to_owned(),
            Some("repository") => continue,
            Some("version") => "version = \"0.1.0\"".to_owned(),
            Some(name) if name.starts_with("storage-") => format!("{name} = {version}"),
            Some(name) => format!("{name} = {}", find(name)?),
        });
    }
    fs::write(&path, lines.join("\n") + "\n")?;
    Ok(())
}

/// Writes the scaffold into a directory that does not exist yet.
pub(crate) fn write(name: &str, dir: &Path) -> Result<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(legal) || name.ends_with('-') {
        return Err(
            format!("`{name}` is no name for a backend: lowercase letters, digits and `-`, as in `my-store`").into()
        );
    }
    if dir.exists() {
        return Err(format!("{} exists already; nothing was written", dir.display()).into());
    }
    let type_name: String = name.split('-').map(capitalised).collect();
    for (file, template) in FILES {
        let text =
            template.replace("{Type}", &type_name).replace("{module}", &name.replace('-', "_")).replace("{name}", name);
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Makes a scaffold, and makes sure that it is clean, and that its suite runs and fails for the right reason.
pub(crate) fn check() -> Result<()> {
    let name = "scaffold-check";
    let scaffold =
        Temporary { dir: root().join(format!("crates/storage-{name}")), lock: fs::read(root().join("Cargo.lock"))? };
    write(name, &scaffold.dir)?;
    eprintln!("\nthe scaffold of a backend");
    let package = format!("storage-{name}");
    step(&mut cargo(["clippy", "--quiet", "--package", &package, "--all-targets", "--", "--deny", "warnings"]))?;
    step(&mut cargo(["fmt", "--package", &package, "--check"]))?;
    let mut options = conformance::Options::all();
    options.backends = vec![name.into()];
    let report = conformance::report(&options)?;
    let reasons: Vec<_> = report.backends.iter().flat_map(|b| &b.checks).filter_map(|c| c.reason.as_deref()).collect();
    if !report.has_failed() || !reasons.iter().any(|reason| reason.contains("`put` is not written yet")) {
        return Err("the scaffold's suite does not say what is missing".into());
    }
    check_alone(name)
}

/// The same outside of the workspace. The versions that it asks for are, until they are published, those of this checkout.
fn check_alone(name: &str) -> Result<()> {
    let scaffold = Temporary { dir: target_dir().join("scaffold-alone"), lock: fs::read(root().join("Cargo.lock"))? };
    let _ = fs::remove_dir_all(&scaffold.dir);
    run(name, Some(&scaffold.dir))?;
    fs::copy(root().join("Cargo.lock"), scaffold.dir.join("Cargo.lock"))?;
    // It lies below the workspace's root, which it is no part of.
    let manifest = scaffold.dir.join("Cargo.toml");
    let mut text = fs::read_to_string(&manifest)? + "\n[workspace]\n\n[patch.crates-io]\n";
    for package in metadata(&root().join("Cargo.toml"), false)?["packages"].as_array().into_iter().flatten() {
        if let (Some(ours @ ("storage-core" | "storage-config" | "storage-conformance")), Some(manifest)) =
            (package["name"].as_str(), package["manifest_path"].as_str())
        {
            let dir = Path::new(manifest).parent().unwrap_or(Path::new("."));
            text += &format!("{ours} = {{ path = {dir:?} }}\n");
        }
    }
    fs::write(&manifest, text)?;
    let mut check = cargo(["check", "--quiet", "--all-targets"]);
    check.arg("--manifest-path").arg(&manifest).arg("--target-dir").arg(target_dir());
    step(&mut check)
}

/// The scaffold and what it changes, undone when dropped.
struct Temporary {
    dir: PathBuf,
    lock: Vec<u8>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // There is nobody to tell; what is left over shows in the status of the checkout.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::write(root().join("Cargo.lock"), &self.lock);
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
