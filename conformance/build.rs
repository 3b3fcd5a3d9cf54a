//! Collects the checks: a `pub async fn` in `src/checks/<group>.rs` is one, its doc comment says what it tries. What it proves
//! are the rows of `docs/contract.md` that name it.
//!
//! The result, `checks.rs` in the output directory, is included by `src/check.rs`. A check that does not follow the form
//! stops the build with a message that names file and line.

use std::{env, fmt::Write, fs, path::Path};

use contract::{Row, rows};

#[allow(dead_code, unreachable_pub, reason = "`cargo xtask tidy` uses the rest of it")]
#[path = "src/contract.rs"]
mod contract;

/// How every check is declared, up to its name.
const DECLARATION: &str = "pub async fn ";

fn main() {
    println!("cargo::rerun-if-changed=src/checks");
    let contract = contract();
    let mut files: Vec<_> = fs::read_dir("src/checks")
        .expect("src/checks can be listed")
        .map(|entry| entry.expect("src/checks can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    let mut table = String::from("static CHECKS: &[Check] = &[\n");
    for path in &files {
        collect(path, &contract, &mut table);
    }
    table.push_str("];\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("checks.rs"), table).expect("OUT_DIR can be written");
}

/// The rows of the contract: beside this package, or in it where it was published.
fn contract() -> Vec<Row> {
    let place = ["../docs/contract.md", "contract.md"].into_iter().find(|place| Path::new(place).is_file());
    let place = place.expect("the contract is in `../docs/contract.md` or `contract.md`");
    println!("cargo::rerun-if-changed={place}");
    let page = fs::read_to_string(place).expect("the contract can be read");
    rows(&page).unwrap_or_else(|e| panic!("{place}: {e}"))
}

/// Appends the checks of one file to the table.
fn collect(path: &Path, contract: &[Row], table: &mut String) {
    let text = fs::read_to_string(path).expect("a check file can be read");
    let group = path.file_stem().and_then(|stem| stem.to_str()).expect("a check file has a name");
    let mut doc: Vec<&str> = Vec::new();
    let mut found = 0;
    for (number, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), number + 1);
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.trim());
        } else if let Some(rest) = line.strip_prefix(DECLARATION) {
            let (name, signature) = rest.split_once('(').unwrap_or((rest, ""));
            assert!(
                matches!(signature, "c: Context) -> Outcome {" | "_: Context) -> Outcome {"),
                "{place}: a check is declared as `pub async fn {name}(c: Context) -> Outcome {{`; \
                 make a helper private or move it to src/support.rs"
            );
            let check = Declared::parse(&doc, &place);
            let path = format!("{group}/{name}");
            let proved = contract.iter().filter(|row| row.proofs.contains(&path));
            let promises: String =
                proved.map(|row| format!("Promise {{ section: {:?}, rule: {:?} }}, ", row.section, row.rule)).collect();
            writeln!(
                table,
                "    Check {{ group: {group:?}, name: {name:?}, tries: {:?}, promises: &[{promises}], \
                 needs: storage_core::Capabilities::new(){}, full: {}, \
                 run: |c| Box::pin(crate::checks::{group}::{name}(c)) }},",
                check.rule, check.needs, check.full
            )
            .expect("writing to a string cannot fail");
            doc.clear();
            found += 1;
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    assert!(found > 0, "{}: the file has no check", path.display());
}

/// What a check's doc comment says.
struct Declared {
    /// The first paragraph.
    rule: String,
    /// `/// Needs: a, b` as builder calls, so that a name that is no capability does not compile.
    needs: String,
    /// Whether `/// Profile: full` leaves the check out of the profile `basic`.
    full: bool,
}

impl Declared {
    fn parse(doc: &[&str], place: &str) -> Self {
        let (mut rule, mut needs, mut full) = (Vec::new(), String::new(), false);
        for line in doc {
            if let Some(names) = line.strip_prefix("Needs:") {
                for name in names.split(',') {
                    write!(needs, ".{}()", name.trim()).expect("writing to a string cannot fail");
                }
            } else if let Some(profile) = line.strip_prefix("Profile:") {
                assert_eq!(profile.trim(), "full", "{place}: the only profile that can be named is `full`");
                full = true;
            } else if !line.is_empty() {
                rule.push(*line);
            }
        }
        assert!(!rule.is_empty(), "{place}: a check starts with a doc comment that says which rule it proves");
        Self { rule: rule.join(" "), needs, full }
    }
}
