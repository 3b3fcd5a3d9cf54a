//! Backends that are sound as long as there is one process, that process lives, and the disk has space.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Mutex as Blocking,
};

use storage_core::{
    Body, Condition, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, ListStream, Object,
    PutOptions, Result, StatOptions, async_trait,
};
use tokio::sync::Mutex;

use super::{
    table,
    wrap::{Fault, Sides, wrap},
};
use crate::support::locked;

table! {
    Files, |inner, namespace: crate::Namespace, fault: fn(crate::Namespace) -> Around| wrap(inner, fault(namespace));
    locks_only_itself_out = |_| Around::LocksItself => ["concurrency/two_processes"];
    replaces_the_key_above = |ns| Around::ReplacesAbove(ns.name().to_owned()) => ["keys/same_from_two_processes"];
    deletes_later = |ns| Around::DeletesLater(ns.name().to_owned()) => ["faults/kill_9_keeps_acknowledged", "readonly/reads_are_as_ever", "readonly/writes_are_denied"];
    collects_streams = |_| Around::Collects => ["stream/bounded_memory"];
    sweeps_what_lives = |ns| { sweep(&ns); Around::Nothing } => ["faults/stale_staging_swept"];
    full_disk_is_other = |_| Around::FullIsOther => ["faults/disk_full"];
}

/// One fault each.
#[derive(Debug, PartialEq, Eq)]
enum Around {
    Nothing,
    LocksItself,
    ReplacesAbove(String),
    DeletesLater(String),
    Collects,
    FullIsOther,
}

type Keys = BTreeMap<String, BTreeSet<Key>>;

/// Keys of this process by namespace, which outlive an instance and not the process.
static KEYS: Blocking<Keys> = Blocking::new(Keys::new());
/// Held while a condition is looked at and the write it allows is made, or while late deletes are done.
static LOCK: Mutex<()> = Mutex::const_new(());

fn keys<T>(run: impl FnOnce(&mut Keys) -> T) -> T {
    run(&mut locked(&KEYS))
}

/// Removes what is staged, whoever is at it.
fn sweep(namespace: &crate::Namespace) {
    let staging = fs::read_dir(namespace.dir().join(".storage/staging"));
    for name in staging.into_iter().flatten().flatten() {
        // What cannot be removed stays.
        let _ = fs::remove_file(name.path());
    }
}

impl Around {
    /// Does the deletes that were acknowledged before: of this key, or all.
    async fn catch_up(&self, s: Sides<'_>, key: Option<&Key>) -> Result<()> {
        let Self::DeletesLater(namespace) = self else { return Ok(()) };
        let _lock = LOCK.lock().await;
        let due = keys(|all| {
            let Some(all) = all.get_mut(namespace) else { return BTreeSet::new() };
            match key {
                Some(key) => all.take(key).into_iter().collect(),
                None => std::mem::take(all),
            }
        });
        for late in due {
            s.inner.delete(&late, DeleteOptions::new()).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Around {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, mut body: Body, mut options: PutOptions) -> Result<Entry> {
        self.catch_up(s, Some(key)).await?;
        if let Self::ReplacesAbove(namespace) = self {
            keys(|all| all.entry(namespace.clone()).or_default().insert(key.clone()));
        }
        let mut lock = None;
        match self {
            Self::Collects => body = super::wrap::whole(body).await?.into(),
            Self::LocksItself => {
                let whole = body.is_in_memory();
                if let Some(Condition::IfMatch(etag)) = options.condition.clone().filter(|_| whole) {
                    lock = Some(LOCK.lock().await);
                    let current = s.inner.stat(key, StatOptions::new()).await?.and_then(|entry| entry.etag);
                    if current != Some(etag) {
                        return Err(Error::new(ErrorKind::PreconditionFailed, "the etag is another"));
                    }
                    options.condition = None;
                }
            }
            _ => {}
        }
        let entry = s.inner.put(key, body, options).await;
        drop(lock);
        match self {
            Self::FullIsOther => entry.map_err(|e| match e.kind() {
                ErrorKind::Unavailable => Error::new(ErrorKind::Other, "error 28").with_source(e),
                _ => e,
            }),
            Self::ReplacesAbove(namespace) => {
                if let Some((above, _)) = key.as_str().rsplit_once('/')
                    && let Ok(above) = Key::parse(above)
                    && s.inner.stat(&above, StatOptions::new()).await?.is_some()
                    && !keys(|all| all.get(namespace).is_some_and(|all| all.contains(&above)))
                {
                    s.inner.delete(&above, DeleteOptions::new()).await?;
                }
                entry
            }
            _ => entry,
        }
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if let Self::DeletesLater(namespace) = self
            && options == DeleteOptions::new()
        {
            keys(|all| all.entry(namespace.clone()).or_default().insert(key.clone()));
            return Ok(());
        }
        self.catch_up(s, Some(key)).await?;
        let _lock = if *self == Self::LocksItself { Some(LOCK.lock().await) } else { None };
        s.inner.delete(key, options).await
    }

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.catch_up(s, Some(key)).await?;
        s.inner.get(key, options).await
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.catch_up(s, Some(key)).await?;
        s.inner.stat(key, options).await
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        self.catch_up(s, None).await?;
        s.inner.list(options).await
    }
}
