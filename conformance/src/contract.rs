//! Reads the tables of `docs/contract.md`: each row is a rule and what proves it.
//!
//! The build script and `cargo xtask tidy` include this file, so that the page is read in one way.

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The heading it stands under.
    pub section: String,
    /// The rule, as a sentence.
    pub rule: String,
    /// The checks (`group/check`) and files that prove it.
    pub proofs: Vec<String>,
    /// Where it stands, from 1.
    pub line: usize,
}

/// The head of every table.
const HEAD: &str = "| rule | checks |";

/// The rows of the page, in order.
///
/// # Errors
/// A message with the line of a row that is not a rule and at least one proof.
pub fn rows(page: &str) -> Result<Vec<Row>, String> {
    let (mut rows, mut section) = (Vec::new(), String::new());
    for (number, text) in page.lines().enumerate() {
        let line = number + 1;
        if let Some(heading) = text.strip_prefix("## ") {
            section = heading.trim().to_owned();
        }
        if !text.starts_with('|') || text == HEAD || text.starts_with("|---") {
            continue;
        }
        let cells: Vec<&str> = text.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [rule, checks] = cells[..] else {
            return Err(format!("line {line}: expected two columns, rule and checks, saw {}", cells.len()));
        };
        let proofs: Vec<String> = checks.split_whitespace().map(|proof| proof.trim_matches('`').to_owned()).collect();
        if rule.is_empty() || proofs.is_empty() {
            return Err(format!("line {line}: expected a rule and what proves it, saw {text:?}"));
        }
        if !checks.split_whitespace().all(|proof| proof.len() > 2 && proof.starts_with('`') && proof.ends_with('`')) {
            return Err(format!(
                "line {line}: expected checks and files as `code` with blanks between, saw {checks:?}"
            ));
        }
        rows.push(Row { section: section.clone(), rule: rule.to_owned(), proofs, line });
    }
    Ok(rows)
}

/// Whether a proof is a check; anything else is a file.
#[must_use]
pub fn is_check(proof: &str) -> bool {
    proof.matches('/').count() == 1 && !proof.contains('.')
}
