//! The other process, as it sees itself.

use std::io::{Write, stdin, stdout};

use futures_util::future::BoxFuture;
use storage_core::Storage;
use tokio::runtime;

use super::{Order, provoke::provoke};
use crate::{
    Namespace, Outcome, Target,
    checks::{concurrency, faults, keys, stream},
    crash,
};

type Task = fn(Child) -> BoxFuture<'static, Outcome>;

/// What a process can be told to do. Each task stands beside the check that gives it.
const TASKS: &[(&str, Task)] = &[
    ("write", |child| Box::pin(crash::writer::write(child))),
    ("count", |child| Box::pin(concurrency::count(child))),
    ("create", |child| Box::pin(keys::create(child))),
    ("stream", |child| Box::pin(stream::measure(child))),
    ("stage", |child| Box::pin(faults::stage(child))),
    ("provoke", |child| Box::pin(provoke(child))),
];

/// What a task gets.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) target: Target,
    pub(crate) namespace: Namespace,
    pub(crate) argument: u64,
    pub(crate) seed: u64,
}

impl Child {
    /// Opens the store that the check has.
    pub(crate) async fn open(&self) -> Outcome<Storage> {
        Ok(Storage::from_arc(self.target.open(&self.namespace).await?))
    }

    /// The next line from the check, or nothing when it has ended.
    pub(crate) async fn hear(&self) -> Option<String> {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            stdin().read_line(&mut line).map(|read| (read > 0).then(|| line.trim_end().to_owned()))
        });
        line.await.ok()?.ok()?
    }
}

/// A line to the check, in one call, so that a kill cannot cut it.
pub(crate) fn say(line: &str) {
    // Without a check to listen there is nothing to do but wait for the end.
    let _ = stdout().lock().write_all(format!("{line}\n").as_bytes());
}

/// Does what the order says.
pub(super) fn obey(targets: &[Target], order: Order) -> Result<(), String> {
    let target = targets.iter().find(|target| target.name() == order.target);
    let target = target.cloned().ok_or_else(|| format!("there is no target {:?}", order.target))?;
    let task = TASKS.iter().find(|(name, _)| *name == order.task);
    let (_, task) = task.ok_or_else(|| format!("there is no task {:?}", order.task))?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime could be started: {e}"))?;
    let Order { place, argument, seed, .. } = order;
    let child = Child { target, namespace: Namespace::at(place), argument, seed };
    runtime.block_on(task(child)).map_err(|failure| failure.to_string())
}
