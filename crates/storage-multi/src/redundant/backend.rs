//! The trait, on top of quorums.

use std::sync::{Arc, atomic::Ordering};

use futures_util::{FutureExt, StreamExt, future::join_all};
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result,
    StatOptions, StorageBackend, Transaction, async_trait, defaults,
    pending::{Caller, Commit},
};
use tokio::task::AbortHandle;

use super::{Inner, Redundant, child::Seen, record::digest_of};
use crate::{error, names};

/// How often a read is begun again when the value changes in between.
const ROUNDS: usize = 16;
/// A value of at most so many bytes is compared with its digest before it is answered.
const COMPARED: u64 = 8 << 20;

/// The side of a write that waits: dropped, it ends the write unless it has begun to take effect.
struct Call {
    caller: Caller,
    task: AbortHandle,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.caller.cancel() {
            self.task.abort();
        }
    }
}

impl Redundant {
    /// Runs a write to its end, or until the caller drops the future.
    async fn run<T, F>(&self, key: &Key, job: impl FnOnce(Arc<Inner>, Commit) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.0.writes.settled(key).await.map_err(Error::ambiguous)?;
        let (caller, commit) = self.0.writes.begin(key);
        let task = self.0.runtime.spawn(job(self.0.clone(), commit));
        let _call = Call { caller, task: task.abort_handle() };
        task.await.unwrap_or_else(|e| {
            let message = "the runtime in which the store was connected has ended; connect again";
            Err(Error::new(ErrorKind::Closed, message).with_source(e))
        })
    }

    /// The value from one store. `None` where it has changed meanwhile, or is not what its digest says.
    async fn read_one(&self, at: usize, seen: &Seen, key: &Key, options: &GetOptions) -> Result<Option<Object>> {
        let child = &self.0.children[at];
        let mut below = options.clone();
        (below.if_none_match, below.parallel_reads) = (None, None);
        below.if_match = seen.etag.clone();
        let begun = tokio::time::Instant::now();
        let stored = child.backend().await?.get(&names::key_below(key)?, below).await.map_err(|e| child.error(e));
        child.note(begun, &stored);
        let object = match stored {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(None),
            Err(e) if matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::Conflict) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(entry) = seen.entry.clone() else { return Ok(None) };
        let body = error::body_above(child.store.name(), object.body);
        let digest = seen.record.as_ref().and_then(|record| record.digest.clone());
        let (None, Some(digest)) = (options.range, digest) else { return Ok(Some(Object::new(entry, body))) };
        if entry.size > COMPARED {
            return Ok(Some(Object::new(entry, body)));
        }
        let value = body.collect(COMPARED).await?;
        if digest_of(&value) == digest {
            return Ok(Some(Object::new(entry, value)));
        }
        child.wrong_values.fetch_add(1, Ordering::Relaxed);
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("the store `{}` answers another value than was written", child.name()),
        ))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Redundant {
    fn info(&self) -> &BackendInfo {
        &self.0.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.0.writes.settled(key).await?;
        for _ in 0..ROUNDS {
            let newest = self.0.newest(key).await?;
            let current = newest.seen.value();
            options.check_current(current)?;
            let Some(current) = current else { return Ok(None) };
            if let Some(range) = options.range {
                range.resolve(current.size)?;
            }
            let mut failed = None;
            let mut changed = false;
            for (at, seen) in &newest.holders {
                match self.read_one(*at, seen, key, &options).await {
                    Ok(Some(object)) => return Ok(Some(object)),
                    Ok(None) => changed = true,
                    Err(e) => failed = Some(e),
                }
            }
            if changed {
                continue;
            }
            // Those that were not asked may have it too.
            let asked: Vec<usize> = newest.holders.iter().map(|(at, _)| *at).collect();
            for (at, child) in self.0.ordered().into_iter().filter(|(at, _)| !asked.contains(at)) {
                let Ok(seen) = child.look(key).await else { continue };
                if seen.damaged.is_none()
                    && seen.id() == newest.seen.id()
                    && let Ok(Some(object)) = self.read_one(at, &seen, key, &options).await
                {
                    return Ok(Some(object));
                }
            }
            return match failed {
                Some(e) => Err(e),
                None => Err(self.0.too_few(1, None)),
            };
        }
        Err(Error::new(ErrorKind::Conflict, "the value is written by others all the while; try again"))
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let target = key.clone();
        self.run(key, |inner, commit| inner.put(target, body, options.metadata, commit)).await
    }

    async fn delete(&self, key: &Key, _: DeleteOptions) -> Result<()> {
        let target = key.clone();
        self.run(key, |inner, commit| inner.remove(target, commit)).await
    }

    async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
        self.0.writes.settled(key).await?;
        Ok(self.0.newest(key).await?.seen.value().cloned())
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.0.writes.settled_prefix(&options.prefix).await?;
        let limit = options.limit.unwrap_or(usize::MAX);
        Ok(self.0.clone().list(options).await?.take(limit).boxed())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        defaults::get_batch(self, items).await
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        defaults::put_batch(self, items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        defaults::delete_batch(self, items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        defaults::query(self, query).await
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        defaults::clear(self, prefix).await
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        defaults::copy(self, from, to, options).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        defaults::rename(self, from, to, options).await
    }

    async fn versions(&self, _: &Key) -> Result<EntryStream> {
        Err(Error::unsupported("versions"))
    }

    async fn presign(&self, _: &Key, _: PresignOptions) -> Result<PresignedRequest> {
        Err(Error::unsupported("presigned requests"))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Err(Error::unsupported("transactions"))
    }

    async fn health(&self) -> Result<()> {
        let asked = self
            .0
            .children
            .iter()
            .filter(|child| !child.is_fenced())
            .map(|child| async move { child.backend().await?.health().await.map_err(|e| child.error(e)) });
        let (well, ill): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().partition(Result::is_ok);
        let need = self.0.write_quorum.max(self.0.read_quorum);
        if well.len() >= need { Ok(()) } else { Err(self.0.too_few(need, ill.into_iter().find_map(Result::err))) }
    }

    async fn disconnect(&self) -> Result<()> {
        let ended =
            self.0.children.iter().map(|child| {
                async move { child.backend().await?.disconnect().await.map_err(|e| child.error(e)) }.boxed()
            });
        // One that is gone has nothing to be disconnected from.
        let _ = join_all(ended).await;
        Ok(())
    }
}
