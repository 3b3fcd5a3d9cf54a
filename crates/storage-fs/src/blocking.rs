//! Blocking work, away from the threads that drive futures.

use std::{panic, sync::LazyLock};

use rustix::process::{Resource, getrlimit};
use storage_core::{
    Error, ErrorKind, Result,
    pending::{Commit, Keys, Writes},
};
use tokio::{runtime::Handle, sync::Semaphore};

/// What a hop is reckoned to need of file descriptors: twice as many as it has open at once, for the rest of the process.
const DESCRIPTORS: u64 = 16;
/// More than this many threads of a runtime do not block at once.
const MOST: u64 = 512;

/// Runs work that changes these keys. If the future is dropped before the work has begun its commit, it leaves everything as it is.
pub(crate) async fn write<T: Send + 'static>(
    writes: &Writes,
    keys: impl Into<Keys>,
    work: impl FnOnce(&Commit) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (_caller, commit) = writes.begin(keys);
    run(move || work(&commit)).await
}

/// Runs `work` on a thread that may block. It runs to its end even if the future is dropped.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let runtime = Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::Other, "the filesystem backend must be called from within a Tokio runtime").with_source(e)
    })?;
    // The semaphore is never closed.
    let turn = TURNS.acquire().await.ok();
    let gated = move || {
        let _turn = turn;
        work()
    };
    match runtime.spawn_blocking(gated).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            Err(e) => {
                Err(Error::new(ErrorKind::Unavailable, "the Tokio runtime is shutting down").ambiguous().with_source(e))
            }
        },
    }
}

/// Of all stores of the process, so many hops run at once that the process's limit of file descriptors allows them.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let turns = (limit / DESCRIPTORS).clamp(2, MOST);
    Semaphore::new(turns as usize)
});
