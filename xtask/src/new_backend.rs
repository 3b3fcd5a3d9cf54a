//! The scaffold of a backend: a crate that compiles, and whose suite says what is missing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result, conformance,
    shell::{cargo, root, step},
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

pub(crate) fn run(name: &str) -> Result<()> {
    let dir = root().join("crates").join(format!("storage-{name}"));
    write(name, &dir)?;
    println!("{} is there. Now:", dir.display());
    println!("  1. write the six methods in src/backend.rs");
    println!("  2. cargo xtask conformance --backend {name}     says what is missing");
    println!("  3. cargo xtask tidy");
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
    Ok(())
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
