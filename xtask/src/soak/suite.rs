//! Every check of the suite on every target, and the page that says when that was.

use std::{collections::BTreeMap, fs, process::Command, time::Instant};

use lexopt::{Arg, Parser, ValueExt};

use crate::{
    Result, conformance,
    report::{BackendReport, Report, Status},
    shell::{self, root, today},
    testing,
};

/// Where the last results stand.
const PAGE: &str = "docs/soak-suite.md";

const HEAD: &str = "\
# The whole suite on every target

Written by `cargo xtask soak suite [--backend A,B]`, which runs every check on every target. `cargo xtask test` and CI run a sample: of targets
in the same group, each check runs on one. A check that is not run proves nothing there, because the target cannot have what it tries; the
reasons are in the report of `cargo xtask conformance`.

| target | date | commit | checks | passed | failed | not run | seconds | seed |
|---|---|---|---|---|---|---|---|---|
";

/// After so many days a result counts as old.
const OLD: i64 = 30;

pub(super) fn run(mut args: Parser) -> Result<()> {
    let mut names = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("backend") => names.extend(args.value()?.string()?.split(',').map(str::to_owned)),
            other => return Err(other.unexpected().into()),
        }
    }
    let wanted = conformance::wanted(&names)?;
    let mut report = Report::default();
    for program in testing::build()?.into_iter().filter(|program| program.is("conformance")) {
        let Some(targets) = wanted.get(program.package()) else { continue };
        eprintln!("{}: {}", program.package(), targets.join(", "));
        let begun = Instant::now();
        let file = shell::target_dir().join(format!("soak-suite-{}.json", program.package()));
        let _ = fs::remove_file(&file);
        let mut command = program.command()?;
        command.env("STORAGE_CONFORMANCE_REPORT", &file).env("STORAGE_CONFORMANCE_TARGETS", targets.join(","));
        let output = command.output()?;
        let Ok(json) = fs::read_to_string(&file) else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{} wrote no report ({}):\n{said}", program.package(), output.status).into());
        };
        let part = Report::from_json(&json)?;
        eprintln!("  took {:.0} s", begun.elapsed().as_secs_f64());
        record(&part)?;
        report = report.merge(part);
    }
    println!("{}", report.table().trim_end());
    if report.has_failed() { Err("the suite failed".into()) } else { Ok(()) }
}

/// Puts a row for each target into the page, in place of an older one.
fn record(report: &Report) -> Result<()> {
    let path = root().join(PAGE);
    let mut rows = rows(&fs::read_to_string(&path).unwrap_or_default());
    let (date, commit) = (today()?, commit()?);
    for backend in &report.backends {
        rows.insert(backend.name.clone(), row(backend, &date, &commit, report.seed));
    }
    let text: String = rows.into_values().map(|row| row + "\n").collect();
    fs::write(path, format!("{HEAD}{text}"))?;
    Ok(())
}

fn row(backend: &BackendReport, date: &str, commit: &str, seed: u64) -> String {
    let count = |status| backend.checks.iter().filter(|check| check.status == status).count();
    let seconds = backend.checks.iter().map(|check| check.duration_ms).sum::<u64>() / 1000;
    let [passed, failed, not_run] = [Status::Passed, Status::Failed, Status::NotRun].map(count);
    let (name, checks) = (&backend.name, backend.checks.len());
    format!("| {name} | {date} | {commit} | {checks} | {passed} | {failed} | {not_run} | {seconds} | {seed} |")
}

/// The rows of the page, by target.
fn rows(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.filter_map(|row| Some((row.strip_prefix("| ")?.split(" | ").next()?.to_owned(), row.to_owned()))).collect()
}

/// What the checkout is at, and whether anything in it differs from that.
fn commit() -> Result<String> {
    let git = |args: &[&str]| Command::new("git").current_dir(root()).args(args).output();
    let id = String::from_utf8(git(&["rev-parse", "--short", "HEAD"])?.stdout)?.trim().to_owned();
    let changed = !git(&["status", "--porcelain", "--untracked-files=no", "--", ":!docs"])?.stdout.is_empty();
    Ok(if changed { id + " and changes" } else { id })
}

/// What is old about the results: targets that were not run, not lately, or not with all the checks that there are now.
pub(crate) fn old() -> Result<Vec<String>> {
    let rows = rows(&fs::read_to_string(root().join(PAGE)).unwrap_or_default());
    let list = fs::read_to_string(root().join("conformance/checks.txt"))?;
    let checks = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count().to_string();
    let now = days(&today()?).unwrap_or_default();
    let mut old = Vec::new();
    for target in conformance::wanted(&[])?.into_values().flatten() {
        let row: Vec<&str> = rows.get(&target).map(|row| row.split(" | ").collect()).unwrap_or_default();
        let what = match row[..] {
            [_, date, _, of, _, failed, ..] => {
                let age = now - days(date).unwrap_or_default();
                let of_then = (of != checks).then(|| format!("with {of} of {checks} checks"));
                let failing = (failed != "0").then(|| format!("{failed} checks failed"));
                failing.or(of_then).or_else(|| (age > OLD).then(|| format!("{age} days ago")))
            }
            _ => Some("never".into()),
        };
        old.extend(what.map(|what| format!("{target}: {what}")));
    }
    Ok(old)
}

/// The days from some day long ago to this date, `2026-11-22`.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    // The year begins in March here, so that the day that some years have more is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day)
}

#[cfg(test)]
mod tests {
    use super::{days, rows};

    #[test]
    fn days_between_dates() {
        let between = |a, b| days(b).zip(days(a)).map(|(b, a)| b - a);
        assert_eq!(between("2024-02-28", "2024-03-01"), Some(2));
        assert_eq!(between("2026-02-28", "2026-03-01"), Some(1));
        assert_eq!(between("2025-12-31", "2026-01-01"), Some(1));
        assert_eq!(days("yesterday"), None);
    }

    #[test]
    fn rows_are_found_by_target() {
        let page = "text\n| target | date |\n|---|---|\n| a | 1 |\n| b-c | 2 |\n";
        assert_eq!(
            rows(page).into_iter().collect::<Vec<_>>(),
            [("a".into(), "| a | 1 |".into()), ("b-c".into(), "| b-c | 2 |".into())]
        );
    }
}
