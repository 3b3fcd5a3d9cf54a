//! All tests of the workspace: built once, then their programs run several at a time, with progress and the time left.
//!
//! `cargo test` runs one program after the other, although most of them wait for disks and servers.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    Result, budget, services,
    shell::{cargo, metadata, root, target_dir},
};

/// A program that takes longer is stopped and counts as failed.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// One test program.
pub(crate) struct Job {
    package: String,
    /// `package/target`.
    name: String,
    program: PathBuf,
    /// The directory of the package, where cargo would run it.
    directory: PathBuf,
    /// Whether nothing else may run meanwhile: it restarts servers that others use.
    alone: bool,
    /// How long it took the last time, in seconds.
    expected: f64,
}

impl Job {
    /// The package it is of.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// Whether it is the test of this name.
    pub(crate) fn is(&self, test: &str) -> bool {
        self.name.strip_prefix(&self.package).and_then(|rest| rest.strip_prefix('/')) == Some(test)
    }

    /// The program as `cargo test` would run it, and told where the servers are.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command.env("CARGO_PKG_NAME", &self.package).stdin(Stdio::null());
        services::provide(&mut command)?;
        Ok(command)
    }
}

/// What a program has come to.
struct Done {
    name: String,
    seconds: f64,
    passed: u64,
    failed: u64,
    not_run: u64,
    success: bool,
}

/// Builds all tests of the default members with all features and runs them, or only the programs whose `package/test` contains
/// one of these texts. Reports of the suite go into the directory.
pub(crate) fn run(reports: Option<&Path>, only: &[String]) -> Result<()> {
    let begun = Instant::now();
    let mut jobs = build()?;
    jobs.retain(|job| only.is_empty() || only.iter().any(|text| job.name.contains(text.as_str())));
    if jobs.is_empty() {
        return Err(format!("no test program has a name with {}", only.join(" or ")).into());
    }
    budget::note("build tests", begun.elapsed());
    let seconds = remembered();
    for job in &mut jobs {
        job.expected = seconds.get(&job.name).copied().unwrap_or(1.0);
    }
    // The longest first, so that none of them begins when the others are through; what must be alone comes last.
    jobs.sort_by(|a, b| a.alone.cmp(&b.alone).then(b.expected.total_cmp(&a.expected)));
    let begun = Instant::now();
    let done = run_all(jobs, reports)?;
    budget::note("run tests", begun.elapsed());
    remember(&done, seconds);
    if !only.is_empty() {
        return finish(&done, true);
    }
    let begun = Instant::now();
    let mut documented = cargo(["test", "--quiet", "--doc", "--all-features"]);
    eprintln!("\n$ cargo test --doc --all-features");
    let documented = documented.status()?.success();
    budget::note("doc-tests", begun.elapsed());
    finish(&done, documented)
}

/// Prints the sums, and fails if a test has.
fn finish(done: &[Done], documented: bool) -> Result<()> {
    let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
    let failed: Vec<&str> = done.iter().filter(|done| !done.success).map(|done| done.name.as_str()).collect();
    println!("{} passed, {} failed, {} skipped", sum(|d| d.passed), sum(|d| d.failed), sum(|d| d.not_run));
    services::report_missing(|_| true)?;
    match (failed.is_empty(), documented) {
        (true, true) => Ok(()),
        (true, false) => Err("documentation tests failed; see above".into()),
        (false, _) => Err(format!("these tests failed, see above: {}", failed.join(", ")).into()),
    }
}

/// What `cargo test --no-run --message-format=json` says of each thing it has built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    package_id: String,
    target: Option<Built>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Built {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds all tests of the default members with all features.
pub(crate) fn build() -> Result<Vec<Job>> {
    let line = ["test", "--no-run", "--all-features"];
    eprintln!("\n$ cargo {}", line.join(" "));
    let mut command = cargo(line);
    let mut child = command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("cargo has no output")?;
    let alone = alone()?;
    let mut jobs = Vec::new();
    for line in BufReader::new(output).lines() {
        let Ok(message) = serde_json::from_str::<Message>(&line?) else { continue };
        let (Some(target), Some(program)) = (message.target, message.executable) else { continue };
        if message.reason != "compiler-artifact" || !message.profile.is_some_and(|profile| profile.test) {
            continue;
        }
        let directory = message.manifest_path.parent().unwrap_or(Path::new(".")).to_owned();
        let package = package(&message.package_id).to_owned();
        let kind = target.kind.first().map_or("", String::as_str);
        let name = if kind == "test" { format!("{package}/{}", target.name) } else { format!("{package} ({kind})") };
        let alone = alone.contains(&name);
        jobs.push(Job { package, name, program, directory, alone, expected: 1.0 });
    }
    if child.wait()?.success() { Ok(jobs) } else { Err("the tests do not build".into()) }
}

/// The name in an id: `path+file:///…/xtask#0.1.0`, or `path+file:///…/conformance#storage-conformance@0.1.0`.
fn package(id: &str) -> &str {
    let (place, name) = id.split_once('#').unwrap_or((id, ""));
    name.split_once('@').map_or_else(|| place.rsplit('/').next().unwrap_or_default(), |(name, _)| name)
}

/// The tests that packages name in `[package.metadata.storage-tests] alone`.
fn alone() -> Result<Vec<String>> {
    let all = metadata(&root().join("Cargo.toml"), false)?;
    let mut names = Vec::new();
    for package in all["packages"].as_array().into_iter().flatten() {
        for test in package["metadata"]["storage-tests"]["alone"].as_array().into_iter().flatten() {
            let (package, test) = (package["name"].as_str(), test.as_str());
            names.extend(package.zip(test).map(|(package, test)| format!("{package}/{test}")));
        }
    }
    Ok(names)
}

/// Runs the jobs in their order, as many at once as there are cores and one more: most wait for disks and servers.
fn run_all(jobs: Vec<Job>, reports: Option<&Path>) -> Result<Vec<Done>> {
    let logs = target_dir().join("test-logs");
    fs::create_dir_all(&logs)?;
    let (together, alone): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| !job.alone);
    let workers = thread::available_parallelism().map_or(2, usize::from) + 1;
    let progress = Progress::new(together.iter().chain(&alone), workers);
    let done = Mutex::new(Vec::new());
    for (jobs, workers) in [(together, workers), (alone, 1)] {
        let queue = Mutex::new(jobs.into_iter());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(job) = take(&queue) {
                        let result = run_one(&job, &logs, reports);
                        let (one, output) = result.unwrap_or_else(|e| (Done::failed(&job), e.to_string()));
                        progress.tell(&job, &one, &output);
                        lock(&done).push(one);
                    }
                });
            }
        });
    }
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn take(queue: &Mutex<std::vec::IntoIter<Job>>) -> Option<Job> {
    lock(queue).next()
}

/// Runs a program as `cargo test` would, and returns what it came to and what it printed.
fn run_one(job: &Job, logs: &Path, reports: Option<&Path>) -> Result<(Done, String)> {
    let log = logs.join(format!("{}.txt", job.name.replace('/', "-")));
    let file = File::create(&log)?;
    let mut command = job.command()?;
    command.stdout(file.try_clone()?).stderr(file);
    if let Some(reports) = reports {
        command.env("STORAGE_CONFORMANCE_REPORT", reports);
    }
    // Every pair of a check and a target is run by `soak suite`.
    command.env("STORAGE_CONFORMANCE_SAMPLE", "1");
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.is_none() {
        output.push_str(&format!("\nstopped after {} seconds\n", LIMIT.as_secs()));
    }
    let mut done = Done { seconds: begun.elapsed().as_secs_f64(), ..Done::failed(job) };
    (done.passed, done.failed, done.not_run) = counts(&output);
    done.success = status.is_some_and(|status| status.success());
    Ok((done, output))
}

/// The sums of the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn counts(output: &str) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    for line in output.lines().filter(|line| line.starts_with("test result: ")) {
        let count = |what: &str| {
            let before = line.split(what).next().filter(|before| before.len() < line.len())?;
            before.trim_end().rsplit(' ').next()?.parse::<u64>().ok()
        };
        sums.0 += count(" passed").unwrap_or_default();
        sums.1 += count(" failed").unwrap_or_default();
        sums.2 += count(" ignored").unwrap_or_default();
    }
    sums
}

impl Done {
    fn failed(job: &Job) -> Self {
        Self { name: job.name.clone(), seconds: 0.0, passed: 0, failed: 0, not_run: 0, success: false }
    }
}

/// How far the run is.
struct Progress {
    begun: Instant,
    programs: usize,
    workers: usize,
    expected: f64,
    so_far: Mutex<(usize, f64)>,
}

impl Progress {
    fn new<'a>(jobs: impl Iterator<Item = &'a Job>, workers: usize) -> Self {
        let (programs, expected) = jobs.fold((0, 0.0), |(n, sum), job| (n + 1, sum + job.expected));
        Self { begun: Instant::now(), programs, workers, expected, so_far: Mutex::default() }
    }

    /// One line for a program that has ended, and all that it printed if it failed.
    fn tell(&self, job: &Job, done: &Done, output: &str) {
        let mut so_far = lock(&self.so_far);
        so_far.0 += 1;
        so_far.1 += job.expected;
        // At first by what it took the last time, then more and more by how fast this run is.
        let (elapsed, share) = (self.begun.elapsed().as_secs_f64(), so_far.1 / self.expected);
        let planned = self.expected / self.workers as f64;
        let left = (1.0 - share) * (share * (elapsed / share.max(0.01)) + (1.0 - share) * planned);
        let (ended, programs) = (so_far.0, self.programs);
        let word = if done.success { "ok" } else { "FAILED" };
        let Done { name, seconds, passed, failed, not_run, .. } = done;
        if !done.success {
            eprintln!("{output}");
        }
        eprintln!(
            "[{ended}/{programs}, about {} left] {word}: {name}: {passed} passed, {failed} failed, {not_run} not run, \
             {seconds:.1} s",
            duration(left)
        );
    }
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// How long each program took when it ran the last time, on this machine or else where the figures were written down.
fn remembered() -> BTreeMap<String, f64> {
    let read = |path: PathBuf| serde_json::from_str::<BTreeMap<String, f64>>(&fs::read_to_string(path).ok()?).ok();
    let mut seconds = read(root().join("xtask/test-seconds.json")).unwrap_or_default();
    seconds.extend(read(target_dir().join("test-seconds.json")).unwrap_or_default());
    seconds
}

fn remember(done: &[Done], mut seconds: BTreeMap<String, f64>) {
    for done in done.iter().filter(|done| done.success) {
        seconds.insert(done.name.clone(), (done.seconds * 10.0).round() / 10.0);
    }
    // Only the estimate of the next run is worse without it.
    if let Ok(text) = serde_json::to_string_pretty(&seconds) {
        let _ = fs::write(target_dir().join("test-seconds.json"), text + "\n");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{counts, duration, package};

    #[test]
    fn an_id_names_its_package() {
        assert_eq!(package("path+file:///a/xtask#0.1.0"), "xtask");
        assert_eq!(package("path+file:///a/conformance#storage-conformance@0.1.0"), "storage-conformance");
    }

    #[test]
    fn results_are_summed() {
        let output = "seed 1\n\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(counts(output), (13, 2, 1));
        assert_eq!(counts("nothing"), (0, 0, 0));
    }

    #[test]
    fn time_left_is_in_minutes() {
        assert_eq!([0.4, 61.0, 600.0].map(duration), ["0:00 min", "1:01 min", "10:00 min"]);
    }
}
