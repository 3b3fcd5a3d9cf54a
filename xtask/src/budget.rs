//! Seconds of each step of CI beside what it may take.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::Result;

/// The most that all of CI may take, in seconds. Only this fails a run.
const TOTAL: u64 = 75 * 60;

/// What each step may take on two cores with an empty `target`, in seconds. A step over it is marked. An issue that adds
/// to CI raises its step's figure here by what it names.
const BUDGETS: &[(&str, u64)] = &[
    ("format, tidy, figures, licences", 60),
    ("clippy", 200),
    ("features one by one", 150),
    ("documentation", 60),
    ("start servers", 40),
    ("build tests", 240),
    ("run tests", 900),
    ("doc-tests", 120),
    ("SlateDB", 180),
    ("packages as published", 60),
    ("guide", 60),
    ("scaffold", 60),
];

static TAKEN: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// Notes how long a step took.
pub(crate) fn note(step: &'static str, took: Duration) {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push((step, took));
}

/// Runs a step and notes how long it took.
pub(crate) fn step(name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    let done = work();
    note(name, begun.elapsed());
    done
}

/// Prints the seconds of all steps, those over their budget marked.
///
/// # Errors
/// When all together took too long.
pub(crate) fn report(total: Duration) -> Result<()> {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    eprint!("\n{}", table(&taken, total));
    if total.as_secs() > TOTAL {
        return Err(format!("CI took {} s, more than the {TOTAL} s that it may take", total.as_secs()).into());
    }
    Ok(())
}

fn table(taken: &[(&str, Duration)], total: Duration) -> String {
    let mut table = format!("{:<34} {:>7} {:>7}\n", "step", "seconds", "budget");
    for (step, took) in taken {
        let budget = BUDGETS.iter().find(|(name, _)| name == step).map(|(_, budget)| *budget);
        let over = budget.is_some_and(|budget| took.as_secs() > budget);
        let budget = budget.map_or_else(|| "-".into(), |budget| budget.to_string());
        let mark = if over { "  OVER" } else { "" };
        table += &format!("{step:<34} {:>7} {budget:>7}{mark}\n", took.as_secs());
    }
    let sum: u64 = BUDGETS.iter().map(|(_, budget)| budget).sum();
    table + &format!("{:<34} {:>7} {sum:>7}\n", "all", total.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::table;

    #[test]
    fn a_step_over_its_budget_is_marked() {
        let taken = [("guide", Duration::from_secs(10_000)), ("clippy", Duration::from_secs(1))];
        let table = table(&taken, Duration::from_secs(10_001));
        let marked: Vec<&str> = table.lines().filter(|line| line.ends_with("OVER")).collect();
        assert_eq!(marked.len(), 1, "{table}");
        assert!(marked[0].starts_with("guide"), "{table}");
    }
}
