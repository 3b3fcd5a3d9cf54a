//! The rules of the house that a program can check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    contract::{is_check, rows},
    shell::root,
    soak,
};

/// The most lines a source file may have.
const LINES: usize = 400;
/// Longer files, and why.
const LONGER: &[(&str, &str)] = &[
    (
        "crates/storage-core/src/storage.rs",
        "one method of the handle after the other; splitting them would hide which there are",
    ),
    ("conformance/src/clients.rs", "one arm for each kind of call, side by side"),
    ("conformance/src/checks/isolation.rs", "a file is a group of checks"),
    ("conformance/src/checks/keys.rs", "a file is a group of checks"),
    ("conformance/src/checks/query.rs", "a file is a group of checks"),
    ("conformance/src/checks/transactions.rs", "a file is a group of checks"),
];
/// The most lines a `lib.rs` may have: it holds no logic.
const LIB_LINES: usize = 60;

pub(crate) fn run() -> Result<()> {
    let mut broken = Vec::new();
    let mut sources = Vec::new();
    for dir in ["bench", "crates", "conformance", "integrations", "xtask", "examples"] {
        collect(&root().join(dir), &mut sources)?;
    }
    for path in &sources {
        check_source(path, &mut broken)?;
    }
    for krate in fs::read_dir(root().join("crates"))? {
        check_crate(&krate?.path(), &mut broken)?;
    }
    check_crate(&root().join("conformance"), &mut broken)?;
    check_contract(&mut broken)?;
    let old = soak::old()?;
    if !old.is_empty() {
        eprintln!("warning: `cargo xtask soak suite` is due for these targets:\n  {}", old.join("\n  "));
    }
    if broken.is_empty() {
        return Ok(());
    }
    broken.sort();
    Err(format!("these rules are broken:\n  {}", broken.join("\n  ")).into())
}

fn collect(dir: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.display().to_string()
}

fn check_source(path: &Path, broken: &mut Vec<String>) -> Result<()> {
    let (name, text) = (name(path), fs::read_to_string(path)?);
    let mut rule = |holds: bool, what: &str| {
        if !holds {
            broken.push(format!("{name}: {what}"));
        }
    };
    let opening = text.lines().next().unwrap_or_default();
    rule(
        opening.starts_with("//!") || opening.starts_with("#![doc = include_str!("),
        "a source file opens with `//!` and says what is here",
    );
    let lines = text.lines().count();
    let longer = LONGER.iter().any(|(file, _)| *file == name);
    rule(
        lines <= LINES || longer,
        &format!("{lines} lines; the most is {LINES}, longer ones need a reason in tidy's list"),
    );
    rule(!(longer && lines <= LINES), "it is short enough now; take it off tidy's list");
    let is_lib = name.ends_with("src/lib.rs");
    rule(!is_lib || lines <= LIB_LINES, &format!("{lines} lines; a lib.rs has at most {LIB_LINES} and no logic"));
    rule(!name.ends_with("mod.rs") || name.contains("/tests/"), "modules are `foo.rs` and `foo/`, not `foo/mod.rs`");
    // Put together so that this file does not break its own rules.
    for word in [concat!("#[", "ignore"), concat!("todo", "!("), concat!("unimplemented", "!(")] {
        rule(!text.contains(word), &format!("`{word}` has no place here"));
    }
    Ok(())
}

fn check_crate(dir: &Path, broken: &mut Vec<String>) -> Result<()> {
    let manifest = dir.join("Cargo.toml");
    let (name, text) = (name(&manifest), fs::read_to_string(&manifest)?);
    let mut rule = |holds: bool, what: &str| {
        if !holds {
            broken.push(format!("{name}: {what}"));
        }
    };
    for field in ["version", "edition", "rust-version", "license", "repository"] {
        let line = format!("{field}.workspace = true");
        rule(text.contains(&line), &format!("`{line}` is missing"));
    }
    rule(text.contains("[lints]\nworkspace = true"), "the workspace's lints are not inherited");
    for file in ["README.md", "CHANGELOG.md"] {
        rule(dir.join(file).exists(), &format!("there is no {file}"));
    }
    let declares = text.contains("[package.metadata.storage-conformance]");
    let has_test = dir.join("tests/conformance.rs").exists();
    rule(
        declares == has_test,
        "a package has both tests/conformance.rs and [package.metadata.storage-conformance], or neither",
    );
    rule(!has_test || text.contains("harness = false"), "the conformance test needs `harness = false`");
    let mut in_dependencies = false;
    for line in text.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
            rule(
                line.contains("workspace = true") || line.contains("path = "),
                &format!("`{line}`: versions stand in the root's Cargo.toml only"),
            );
        }
    }
    Ok(())
}

/// Each rule of the contract has a proof that exists, and each check is the proof of a rule.
fn check_contract(broken: &mut Vec<String>) -> Result<()> {
    let page = fs::read_to_string(root().join("docs/contract.md"))?;
    let listed = fs::read_to_string(root().join("conformance/checks.txt"))?;
    broken.extend(proofs(&page, &listed, |file| root().join(file).exists()));
    Ok(())
}

/// What is wrong with the proofs on the page, given the list of checks and which files exist.
fn proofs(page: &str, listed: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let checks: BTreeSet<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    let rows = match rows(page) {
        Ok(rows) => rows,
        Err(e) => return vec![format!("docs/contract.md, {e}")],
    };
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| &row.proofs).map(String::as_str).collect();
    let mut wrong: Vec<String> = checks
        .difference(&named)
        .map(|check| format!("docs/contract.md: no rule names the check `{check}`; add a row, or name it in one"))
        .collect();
    for row in &rows {
        for proof in &row.proofs {
            let known = if is_check(proof) { checks.contains(&**proof) } else { exists(proof) };
            if !known {
                let what = if is_check(proof) { "check (see conformance/checks.txt)" } else { "file" };
                wrong.push(format!("docs/contract.md, line {}: `{proof}` is no {what}", row.line));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::proofs;

    const CHECKS: &str = "# Checks.\na/one\na/two\n";

    fn wrong(table: &str) -> String {
        proofs(&format!("## Keys\n\n| rule | checks |\n|---|---|\n{table}\n"), CHECKS, |file| file == "docs/soak.md")
            .join("\n")
    }

    #[test]
    fn rules_need_proofs_and_checks_need_rules() {
        assert_eq!(wrong("| A. | `a/one` `a/two` |\n| B. | `docs/soak.md` |"), "");
        assert!(wrong("| A. | `a/one` `a/two` |\n| B. | |").contains("line 6: expected a rule and what proves it"));
        assert!(wrong("| A. | `a/one` `a/two` |\n| B. | by hand |").contains("line 6: expected checks and files"));
        assert!(wrong("| A. | `a/one` |").contains("no rule names the check `a/two`"));
        assert!(wrong("| A. | `a/one` `a/two` `a/three` |").contains("line 5: `a/three` is no check"));
        assert!(wrong("| A. | `a/one` `a/two` `docs/gone.md` |").contains("line 5: `docs/gone.md` is no file"));
        assert!(wrong("| A. | `a/one` | `a/two` |").contains("line 5: expected two columns"));
    }
}
