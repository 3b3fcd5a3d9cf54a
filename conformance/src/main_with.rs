//! The `main` function of a conformance test: trials for libtest-mimic, and the report.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::ExitCode,
    sync::{Arc, Mutex, OnceLock},
    thread,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use storage_core::BackendInfo;

use crate::{
    Check, Selection, Target, answer, checks,
    message::repeat,
    report::{CheckReport, Report, Status},
    runner::{describe, run_check},
    selection::report_file,
    support::locked,
};

/// Writes the `main` function of a test with `harness = false`, which runs all checks on the targets.
///
/// Each argument is a [`Target`](crate::Target) or a bare factory `|ns: Namespace| async move { … }`; the target is then called like
/// the package. If `harness = false` was forgotten, the one test that remains fails and says so.
#[macro_export]
macro_rules! main {
    ($($target:expr),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            let origin = $crate::Origin {
                package: env!("CARGO_PKG_NAME"),
                manifest_dir: env!("CARGO_MANIFEST_DIR"),
                test: env!("CARGO_CRATE_NAME"),
            };
            $crate::main_with(origin, vec![$($crate::IntoTarget::into_target($target, origin.package)),+])
        }

        #[test]
        fn harness_must_be_off() {
            panic!(
                "no check has run: add `[[test]] name = {:?} harness = false` to Cargo.toml",
                env!("CARGO_CRATE_NAME")
            );
        }
    };
}

/// How many checks run at once at least.
const THREADS: usize = 4;

/// Where a test comes from, for the command that repeats a failed check.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The package.
    pub package: &'static str,
    /// The directory of its `Cargo.toml`, which may say what features its targets need.
    pub manifest_dir: &'static str,
    /// The test target.
    pub test: &'static str,
}

/// Runs all checks on the targets, as [`main!`](crate::main) does.
#[must_use]
pub fn main_with(origin: Origin, targets: Vec<Target>) -> ExitCode {
    if let Some(code) = answer(&targets) {
        return code;
    }
    if std::env::var_os("STORAGE_CONFORMANCE_LIST").is_some() {
        for target in &targets {
            let state = target.unavailable().map_or("can run here".to_owned(), |why| format!("cannot run here: {why}"));
            // Not `println!`, which tests capture: this is the answer itself.
            let _ = writeln!(std::io::stdout(), "  {:<24} {state}", target.name());
        }
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // Most checks wait for disks, servers and each other.
    let cores = thread::available_parallelism().map_or(2, usize::from);
    arguments.test_threads.get_or_insert(cores.max(THREADS));
    let done = selected(targets).and_then(|(selection, targets)| {
        let report = report_file(origin.package)?;
        if report.is_some() && std::env::var_os("NEXTEST").is_some() {
            return Err("a report needs all checks in one process: use `cargo test`".into());
        }
        Ok((selection, targets, report))
    });
    let (selection, targets, report) = match done {
        Ok(done) => done,
        Err(message) => return complain(&message),
    };
    if !arguments.list {
        eprintln!("seed {} (set STORAGE_CONFORMANCE_SEED to use it again)", selection.seed);
    }
    let selections: Vec<Selection> = targets.iter().map(|target| selection.of(target, &targets)).collect();
    let runs = targets.into_iter().zip(selections).map(|(target, selection)| Run::new(origin, target, selection));
    let runs: Vec<Arc<Run>> = runs.collect();
    let trials = runs.iter().flat_map(Run::trials).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    runs.iter().for_each(|run| run.target.finish());
    if let Some(path) = report.filter(|_| !arguments.list) {
        let backends = runs.iter().map(|run| run.report()).collect();
        let report = Report { seed: selection.seed, backends };
        if let Err(e) = fs::write(&path, report.to_json()) {
            return complain(&format!("the report cannot be written to {path:?}: {e}"));
        }
    }
    conclusion.exit_code()
}

fn complain(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

/// The targets that the environment asks for.
fn selected(mut targets: Vec<Target>) -> Result<(Selection, Vec<Target>), String> {
    let selection = Selection::from_env()?;
    let known: Vec<&str> = targets.iter().map(Target::name).collect();
    let distinct: BTreeSet<&str> = known.iter().copied().collect();
    if distinct.len() < known.len() {
        return Err(format!("two targets have the same name: {}", known.join(", ")));
    }
    let unknown = |name: &&String| !distinct.contains(name.as_str());
    if let Some(name) = selection.targets.iter().find(unknown) {
        return Err(format!("STORAGE_CONFORMANCE_TARGETS names {name:?}, known are {}", known.join(", ")));
    }
    if !selection.targets.is_empty() {
        targets.retain(|target| selection.targets.contains(target.name()));
    }
    Ok((selection, targets))
}

/// The checks on one target, and what has come out so far.
struct Run {
    origin: Origin,
    target: Target,
    selection: Selection,
    described: OnceLock<BackendInfo>,
    results: Mutex<Vec<CheckReport>>,
}

impl Run {
    fn new(origin: Origin, target: Target, selection: Selection) -> Arc<Self> {
        Arc::new(Self { origin, target, selection, described: OnceLock::new(), results: Mutex::default() })
    }

    fn trials(self: &Arc<Self>) -> impl Iterator<Item = Trial> + use<> {
        let this = self.clone();
        // Nextest cannot be told at run time that a test did not run; what is known beforehand it shows as skipped.
        let passed_over = !this.selection.require_servers && this.target.unavailable().is_some();
        let skipped = std::env::var_os("NEXTEST").is_some() && passed_over;
        checks().iter().map(move |check| {
            let (this, name) = (this.clone(), this.trial_name(check));
            Trial::ignorable_test(name, move || this.run(check)).with_ignored_flag(skipped)
        })
    }

    fn trial_name(&self, check: &Check) -> String {
        format!("{}::{}", self.target.name(), check.path())
    }

    fn run(&self, check: &'static Check) -> Result<Completion, Failed> {
        let mut report = run_check(&self.target, check, &self.selection, &self.described);
        if report.status == Status::Failed {
            let trial = self.trial_name(check);
            let again = repeat(self.origin, &self.target, &self.selection, &trial);
            let mut reason = report.reason.unwrap_or_default();
            if !reason.ends_with('\n') {
                reason.push('\n');
            }
            report.reason = Some(reason + &again);
        }
        let (status, reason) = (report.status, report.reason.clone());
        let mut results = locked(&self.results);
        results.push(report);
        match status {
            Status::Passed => Ok(Completion::Completed),
            Status::NotRun => Ok(Completion::Ignored { reason }),
            Status::Failed => Err(reason.unwrap_or_default().into()),
        }
    }

    fn report(&self) -> crate::report::BackendReport {
        let mut results = locked(&self.results).clone();
        results.sort_by_key(CheckReport::path);
        describe(&self.target, self.described.get(), results)
    }
}
