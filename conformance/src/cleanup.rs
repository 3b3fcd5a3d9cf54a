//! Removes the namespaces of checks from a server, beside the checks that come after.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use storage_core::Result;
use tokio::{runtime, time::timeout};

use crate::Namespace;

type Remove = dyn Fn(Namespace) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// How long it may take to remove a namespace.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a call may take of a store that is not slow.
const USUAL: Duration = Duration::from_secs(60);
/// How long what it left running may take to end.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// How namespaces are removed, and the thread that is at it.
#[derive(Clone)]
pub(crate) struct Cleanup {
    remove: Arc<Remove>,
    worker: Arc<Mutex<Option<Worker>>>,
}

struct Worker {
    namespaces: mpsc::Sender<Namespace>,
    thread: JoinHandle<()>,
}

impl Cleanup {
    pub(crate) fn new<F, Fut>(remove: F) -> Self
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let remove = move |namespace| remove(namespace).boxed();
        Self { remove: Arc::new(remove), worker: Arc::default() }
    }

    /// Has the namespaces of a check that is over removed, some time before [`finish`](Self::finish) returns.
    /// Where a call may take longer than usual, so may this.
    pub(crate) fn begin(&self, target: &str, call: Duration, over: Vec<Namespace>) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = worker.get_or_insert_with(|| {
            let (namespaces, queue) = mpsc::channel();
            let (remove, target) = (self.remove.clone(), target.to_owned());
            let limit = if call > USUAL { call } else { LIMIT };
            Worker { namespaces, thread: thread::spawn(move || work(&remove, &target, limit, &queue)) }
        });
        for namespace in over {
            // Without a worker it stays, as the worker has said.
            let _ = worker.namespaces.send(namespace);
        }
    }

    /// Waits until all are removed that can be.
    pub(crate) fn finish(&self) {
        let worker = mem::take(&mut *self.worker.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(Worker { namespaces, thread }) = worker {
            drop(namespaces);
            // It does not panic; if it did, its message was printed.
            let _ = thread.join();
        }
    }
}

/// Removes namespaces until no more come. What cannot be removed stays, and is said of the first only: where one fails, most do.
/// After one that takes too long none is tried, so that a server which hangs does not hold up the end of the run.
fn work(remove: &Arc<Remove>, target: &str, limit: Duration, queue: &mpsc::Receiver<Namespace>) {
    let runtime = match runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return eprintln!("warning: nothing is removed from {target}, no runtime could be started: {e}"),
    };
    let mut complained = false;
    for namespace in queue {
        let (remove, direct) = (remove.clone(), namespace.direct());
        // As a task, so that a panic is caught, and the time limit holds although the target blocks a thread.
        let task = async move { remove(direct).await };
        let removed = runtime.block_on(async { timeout(limit, tokio::spawn(task)).await });
        let (reason, hangs) = match removed {
            Ok(Ok(Ok(()))) => continue,
            Ok(Ok(Err(e))) => (format!("{e:?}"), false),
            Ok(Err(e)) => (format!("the target's cleanup ended early: {e}"), false),
            Err(_) => (format!("it took longer than {} seconds", limit.as_secs()), true),
        };
        if !mem::replace(&mut complained, true) {
            let name = namespace.name();
            eprintln!(
                "warning: {target} still has the namespace {name}, and perhaps others, remove them by hand: {reason}"
            );
        }
        if hangs {
            break;
        }
    }
    runtime.shutdown_timeout(SHUTDOWN);
}
