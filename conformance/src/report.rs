//! What came out of a run: as JSON for tools, as a table for people.
//!
//! This file needs serde only, so that a tool can include it without the rest of the suite.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use serde::{Deserialize, Serialize};

/// The outcome of one or several runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The seed of the run; of merged runs that of the first.
    pub seed: u64,
    /// One for each target.
    pub backends: Vec<BackendReport>,
}

/// The outcome on one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendReport {
    /// The target's name.
    pub name: String,
    /// What the backend calls itself; empty when it could not be opened. So are the parts below.
    pub id: String,
    /// The version of the implementing crate.
    pub version: String,
    /// What it declares.
    pub capabilities: BTreeMap<String, bool>,
    /// How large things may be.
    pub limits: LimitsReport,
    /// `store` or `instance`.
    pub consistency: String,
    /// What kind of store it ran on: `embedded`, `server`, `vendor emulator`, `third-party emulator`.
    pub runs_on: String,
    /// One for each check that was selected.
    pub checks: Vec<CheckReport>,
}

/// How large things may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsReport {
    /// Bytes of a key.
    pub key: u64,
    /// Bytes of a value.
    pub value: u64,
    /// Bytes of metadata.
    pub metadata: u64,
    /// The smallest step of dates.
    pub time_granularity_ns: u64,
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The target's name.
    pub backend: String,
    /// The check's name within its group.
    pub name: String,
    /// The check's group.
    pub group: String,
    /// What came out.
    pub status: Status,
    /// Why it failed (expected, seen, rule, command to reproduce) or was not run; for a check that proved a refusal, of
    /// what.
    pub reason: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
    /// The seed it ran with.
    pub seed: u64,
}

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The rule holds.
    Passed,
    /// The rule does not hold.
    Failed,
    /// Nobody knows: see the reason.
    NotRun,
}

impl CheckReport {
    /// `group/name`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }
}

impl BackendReport {
    /// How many checks came to this, in one group or in all.
    #[must_use]
    pub fn count(&self, status: Status, group: Option<&str>) -> usize {
        let counted = |check: &&CheckReport| check.status == status && group.is_none_or(|group| check.group == group);
        self.checks.iter().filter(counted).count()
    }

    /// The paths of the checks that failed.
    #[must_use]
    pub fn failures(&self) -> BTreeSet<String> {
        let failed = |check: &&CheckReport| check.status == Status::Failed;
        self.checks.iter().filter(failed).map(CheckReport::path).collect()
    }
}

impl Report {
    /// Appends another run's outcome.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        if self.backends.is_empty() {
            self.seed = other.seed;
        }
        self.backends.extend(other.backends);
        self
    }

    /// The report as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps with string keys always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads a report.
    ///
    /// # Errors
    /// A message when the text is not a whole report: truncated, with an unknown or without a known field.
    pub fn from_json(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|e| format!("this is no conformance report: {e}"))
    }

    /// Whether any check failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.backends.iter().any(|backend| backend.count(Status::Failed, None) > 0)
    }

    /// Groups by backends; each cell says how many checks passed, failed (`!`) and were not run (`-`). Below, every failure
    /// in full, and why checks were not run.
    #[must_use]
    pub fn table(&self) -> String {
        let checks = || self.backends.iter().flat_map(|backend| &backend.checks);
        let groups: BTreeSet<&str> = checks().map(|check| check.group.as_str()).collect();
        let mut rows = vec![
            std::iter::once(String::new())
                .chain(self.backends.iter().map(|backend| backend.name.clone()))
                .collect::<Vec<_>>(),
        ];
        for group in groups.into_iter().map(Some).chain([None]) {
            let mut row = vec![group.unwrap_or("all").to_owned()];
            row.extend(self.backends.iter().map(|backend| cell(backend, group)));
            rows.push(row);
        }
        let mut text = aligned(&rows);
        for check in checks().filter(|check| check.status == Status::Failed) {
            let reason = check.reason.as_deref().unwrap_or("no reason given");
            // Writing to a string cannot fail.
            let _ = write!(text, "\nFAILED {}::{}\n{reason}\n", check.backend, check.path());
        }
        let mut not_run: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for check in checks().filter(|check| check.status == Status::NotRun) {
            let reason = check.reason.as_deref().unwrap_or("no reason given");
            *not_run.entry((&check.backend, reason)).or_default() += 1;
        }
        for ((backend, reason), count) in not_run {
            let _ = write!(text, "\nnot run on {backend}: {count} ({reason})");
        }
        text + "\n"
    }
}

fn cell(backend: &BackendReport, group: Option<&str>) -> String {
    let mut cell = backend.count(Status::Passed, group).to_string();
    for (status, mark) in [(Status::Failed, '!'), (Status::NotRun, '-')] {
        let count = backend.count(status, group);
        if count > 0 {
            let _ = write!(cell, " {count}{mark}");
        }
    }
    cell
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}
