//! The backend of `docs/add-a-backend.md`, taken word for word into a crate outside the workspace and put to the suite.

use std::{fs, process::ExitCode};

use crate::{
    Result, conformance,
    shell::{root, target_dir},
};

pub(crate) fn run() -> Result<()> {
    let guide = root().join("docs/add-a-backend.md");
    let text = fs::read_to_string(&guide)?;
    let dir = target_dir().join("add-a-backend");
    let _ = fs::remove_dir_all(&dir);
    for name in ["Cargo.toml", "src/lib.rs", "tests/conformance.rs"] {
        let mut content =
            block(&text, name).ok_or_else(|| format!("{} has no block headed `{name}`", guide.display()))?;
        if name == "Cargo.toml" {
            // Published crates become those of this checkout, and the crate a workspace of its own.
            content = content
                .lines()
                .map(|line| match line.split_once(" = \"0.2\"") {
                    Some((krate, _)) if krate.starts_with("storage-") => path_dependency(krate),
                    _ => line.to_owned(),
                })
                .collect::<Vec<_>>()
                .join("\n")
                + "\n[workspace]\n";
        }
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&dir))?;
        fs::write(file, content)?;
    }
    // The versions this workspace was tested with; cargo drops what the crate does not need.
    fs::copy(root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    eprintln!("\nthe backend of {}", guide.display());
    let mut options = conformance::Options::all();
    options.manifest = dir.join("Cargo.toml");
    // What the workspace has built is not built again.
    options.target_dir = Some(target_dir());
    if conformance::run(options)? == ExitCode::SUCCESS {
        return Ok(());
    }
    Err(format!("the backend of {} fails the suite", guide.display()).into())
}

fn path_dependency(krate: &str) -> String {
    let dir = match krate {
        "storage-conformance" => root().join("conformance"),
        _ => root().join("crates").join(krate),
    };
    format!("{krate} = {{ path = {:?} }}", dir)
}

/// The fenced block after the line that consists of this file name in backticks.
fn block(text: &str, name: &str) -> Option<String> {
    let heading = format!("`{name}`");
    let mut lines = text.lines().skip_while(|line| *line != heading);
    lines.by_ref().find(|line| line.starts_with("```"))?;
    let body: Vec<_> = lines.take_while(|line| *line != "```").collect();
    Some(body.join("\n") + "\n")
}
