//! Runs one check: its own namespace, its own runtime, a time limit, panics caught.

use std::{
    collections::BTreeMap,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicUsize, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use storage_core::{BackendInfo, Consistency};
use tokio::{
    runtime,
    task::{JoinError, JoinHandle},
    time::timeout,
};

use crate::{
    Check, Context, Failure, Namespace, Outcome, Selection, Target,
    calls::Calls,
    checks,
    cleanup::Cleanup,
    context::Used,
    message::failed,
    refuse::{REFUSABLE, refused},
    report::{BackendReport, CheckReport, LimitsReport, Status},
    support::locked,
};

/// Threads of each check's runtime: enough that races happen.
const WORKERS: usize = 4;
/// A check may take so many times as long as one call.
const TOTAL: u32 = 5;
/// How long tasks that a check left behind may take to end.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Runs all checks on a target, several at once, in this process.
#[must_use]
pub fn run(target: &Target, selection: &Selection) -> BackendReport {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let described = OnceLock::new();
    let work = || {
        while let Some(check) = checks().get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = run_check(target, check, selection, &described);
            locked(&results).insert(check.path(), report);
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    target.finish();
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    describe(target, described.get(), results.into_values().collect())
}

/// The report of a target, as far as its backend could be opened.
pub(crate) fn describe(target: &Target, info: Option<&BackendInfo>, checks: Vec<CheckReport>) -> BackendReport {
    let mut report = BackendReport {
        name: target.name().to_owned(),
        runs_on: target.kind().to_owned(),
        checks,
        ..BackendReport::default()
    };
    if let Some(info) = info {
        report.id = info.id.to_string();
        report.version.clone_from(&info.version);
        report.capabilities = info.capabilities.iter().map(|(name, declared)| (name.to_owned(), declared)).collect();
        report.limits = LimitsReport {
            key: info.limits.key as u64,
            value: info.limits.value,
            metadata: info.limits.metadata as u64,
            time_granularity_ns: u64::try_from(info.limits.time_granularity.as_nanos()).unwrap_or(u64::MAX),
        };
        report.consistency = match info.consistency {
            Consistency::Shared => "shared".into(),
            Consistency::ProcessLocal => "process-local".into(),
            other => format!("{other:?}").to_lowercase(),
        };
    }
    report
}

/// Runs one check and keeps what the backend says about itself.
pub(crate) fn run_check(
    target: &Target,
    check: &'static Check,
    selection: &Selection,
    described: &OnceLock<BackendInfo>,
) -> CheckReport {
    let started = Instant::now();
    let missing = target.unavailable();
    let must_run = selection.require_servers && missing.is_some();
    let left_out = missing.or_else(|| {
        let disabled = selection.disabled.contains(&check.path());
        let beyond = target.is_basic() && check.full && check.needs().next().is_none();
        let elsewhere = selection.elsewhere.get(&check.path());
        let elsewhere = elsewhere.map(|other| format!("a sample: {other} runs it"));
        let left_out = disabled.then(|| "disabled".to_owned()).or(elsewhere);
        left_out.or_else(|| beyond.then(|| "not in the profile basic".to_owned()))
    });
    let (status, reason) = match left_out {
        Some(reason) if must_run => (Status::Failed, Some(reason)),
        Some(reason) => (Status::NotRun, Some(reason)),
        None => match isolated(target, check, selection, described) {
            Ok(note) => (Status::Passed, note),
            Err(Failure::NotRun(reason)) => (Status::NotRun, Some(reason)),
            Err(Failure::Failed(message)) => (Status::Failed, Some(message)),
        },
    };
    CheckReport {
        backend: target.name().to_owned(),
        name: check.name.to_owned(),
        group: check.group.to_owned(),
        status,
        reason,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        seed: selection.seed,
    }
}

/// Runs a check in its own runtime. A note says what a passed check proved instead of its rule.
fn isolated(
    target: &Target,
    check: &'static Check,
    selection: &Selection,
    described: &OnceLock<BackendInfo>,
) -> Outcome<Option<String>> {
    let used = Used::default();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("no runtime could be started: {e}")))?;
    let (info, calls) = (Arc::new(OnceLock::new()), Calls::new());
    let run = {
        let (target, used, info, calls) = (target.clone(), used.clone(), info.clone(), calls.clone());
        let seed = seed_of(selection.seed, &check.path());
        async move {
            let context = Context::open(&target, used, calls, seed).await?;
            // Another check may have been faster; all say the same.
            let _ = info.set(context.info().clone());
            proven(check, context).await
        }
    };
    let limit = target.time_limit(selection.time_limit);
    // As a task, so that the time limit holds although the check blocks a thread.
    let outcome = runtime.block_on(async { watched(tokio::spawn(run), &calls, limit).await });
    // A destructor that panics must not take the other checks along.
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.shutdown_timeout(SHUTDOWN)));
    if let Some(info) = info.get() {
        let _ = described.set(info.clone());
    }
    let outcome = match outcome {
        Err(hung) => Err(Failure::Failed(hung)),
        Ok(Err(e)) if e.is_panic() => {
            let payload = e.into_panic();
            let message = panic_message(&*payload);
            Err(Failure::Failed(format!("expected no panic, saw one: {message}")))
        }
        Ok(Err(e)) => Err(Failure::Failed(format!("the check ended early: {e}"))),
        Ok(Ok(_)) if ended.is_err() => Err("expected no panic, saw one in a destructor".into()),
        Ok(Ok(outcome)) => outcome,
    };
    let outcome = outcome.map_err(|failure| match failure {
        Failure::Failed(message) => Failure::Failed(failed(check, &message, &calls)),
        not_run => not_run,
    });
    let used = mem::take(&mut *locked(&used));
    match target.removal() {
        Some(removal) => cleaned(outcome, removal, target.name(), limit, used),
        None => outcome,
    }
}

/// What a check comes to, or why it counts as hung: nothing has come from the store for `limit`, or it is not over after five
/// times as long.
async fn watched<T>(mut check: JoinHandle<T>, calls: &Calls, limit: Duration) -> Result<Result<T, JoinError>, String> {
    let started = Instant::now();
    let look = (limit / 8).min(Duration::from_millis(500));
    loop {
        if let Ok(ended) = timeout(look, &mut check).await {
            return Ok(ended);
        }
        if let Some(stuck) = calls.stuck(limit) {
            return Err(stuck);
        }
        if started.elapsed() >= limit * TOTAL {
            let (after, calls) = (limit * TOTAL, calls.count());
            return Err(format!(
                "hung: expected an end within {after:?}, saw {calls} calls and more to come; if the store is slow, not stuck, \
                 give it time by Target::patience or STORAGE_CONFORMANCE_SECONDS"
            ));
        }
    }
}

/// Has the namespaces of a check removed; those of a failed one stay for whoever looks for the cause.
fn cleaned<T>(
    outcome: Outcome<T>,
    removal: &Cleanup,
    target: &str,
    limit: Duration,
    used: Vec<Namespace>,
) -> Outcome<T> {
    match outcome {
        Err(Failure::Failed(message)) => {
            let names: Vec<_> = used.iter().map(Namespace::name).collect();
            Err(Failure::Failed(format!("{message}\n  left in place: {}\n", names.join(", "))))
        }
        outcome => {
            removal.begin(target, limit, used);
            outcome
        }
    }
}

/// Runs the check, or what stands for it where a capability it needs is not declared.
async fn proven(check: &Check, context: Context) -> Outcome<Option<String>> {
    let declared: BTreeMap<_, _> = context.info().capabilities.iter().collect();
    let missing = |name: &&str| declared.get(name) != Some(&true);
    let missing: Vec<&str> = check.needs().filter(missing).collect();
    if let Some(name) = missing.iter().find(|name| REFUSABLE.contains(name)) {
        refused(name, &context.storage).await?;
        return Ok(Some(format!("{name} is not declared, and refused as it must be")));
    }
    if let Some(name) = missing.first() {
        return Err(Failure::NotRun(format!("{name} is not declared")));
    }
    (check.run)(context).await.map(|()| None)
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// The check's own seed: FNV-1a over its name, so that one check's randomness does not depend on the others.
fn seed_of(seed: u64, path: &str) -> u64 {
    path.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
