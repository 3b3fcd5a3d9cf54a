//! Writes that take effect after their caller has given them up, and calls that do not wait for those.

use std::{future::poll_fn, sync::Arc, task::Poll};

use futures_util::{FutureExt, future::BoxFuture};
use storage_core::{
    BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, GetOptions, Key, ListOptions, ListStream,
    Object, PutOptions, Query, RenameOptions, Result, StatOptions, async_trait,
};
use tokio::sync::watch;

use super::{
    table,
    wrap::{Fault, Sides, pause, whole},
};

table! {
    late_put = Late::new(&[Call::Put], &[]) => ["dropped/put_is_never_late"];
    late_stream_put = Late::new(&[Call::StreamPut], &[]) => ["dropped/streamed_put_is_never_late"];
    late_delete = Late::new(&[Call::Delete], &[]) => ["dropped/delete_is_never_late"];
    late_copy = Late::new(&[Call::Copy], &[]) => ["dropped/copy_and_rename_are_never_late"];
    late_rename = Late::new(&[Call::Rename], &[]) => ["dropped/copy_and_rename_are_never_late"];
    late_put_batch = Late::new(&[Call::PutBatch], &[]) => ["dropped/batch_is_never_late"];
    late_delete_batch = Late::new(&[Call::DeleteBatch], &[]) => ["dropped/batch_is_never_late"];
    late_clear = Late::new(&[Call::Clear], &[]) => ["dropped/clear_is_never_late"];
    late_for_readers = Late::new(&all_but(STREAMED_AND_READS), WRITES) => ["dropped/batch_is_never_late", "dropped/clear_is_never_late", "dropped/copy_and_rename_are_never_late", "dropped/delete_is_never_late", "dropped/put_is_never_late"];
    late_for_listings = Late::new(&all_but(STREAMED_AND_READS), &all_but(&[Call::List, Call::Query])) => ["dropped/batch_is_never_late", "dropped/clear_is_never_late", "dropped/copy_and_rename_are_never_late", "dropped/delete_is_never_late", "dropped/put_is_never_late"];
    late_for_batches = Late::new(&all_but(STREAMED_AND_READS), &all_but(&[Call::GetBatch, Call::PutBatch, Call::DeleteBatch])) => ["dropped/batch_is_never_late", "dropped/clear_is_never_late", "dropped/copy_and_rename_are_never_late", "dropped/delete_is_never_late", "dropped/put_is_never_late"];
    late_for_clear = Late::new(&all_but(STREAMED_AND_READS), &all_but(&[Call::Clear])) => ["dropped/batch_is_never_late", "dropped/put_is_never_late"];
    late_for_copies = Late::new(&all_but(STREAMED_AND_READS), &all_but(&[Call::Copy, Call::Rename])) => ["dropped/batch_is_never_late", "dropped/clear_is_never_late", "dropped/copy_and_rename_are_never_late", "dropped/delete_is_never_late", "dropped/put_is_never_late"];
}

/// What the fault tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Put,
    StreamPut,
    Delete,
    Copy,
    Rename,
    PutBatch,
    DeleteBatch,
    Clear,
    Get,
    Stat,
    List,
    GetBatch,
    Query,
}

const WRITES: &[Call] = &[
    Call::Put,
    Call::StreamPut,
    Call::Delete,
    Call::Copy,
    Call::Rename,
    Call::PutBatch,
    Call::DeleteBatch,
    Call::Clear,
];
/// A body that is read first leaves few instants to drop what comes behind.
const STREAMED_AND_READS: &[Call] = &[Call::StreamPut, Call::Get, Call::Stat, Call::List, Call::GetBatch, Call::Query];
const READS: &[Call] = &[Call::Get, Call::Stat, Call::List, Call::GetBatch, Call::Query];

fn all_but(calls: &[Call]) -> Vec<Call> {
    WRITES.iter().chain(READS).copied().filter(|call| !calls.contains(call)).collect()
}

/// The calls in `late` take effect a while after their futures were dropped; those in `waiting` wait for that.
#[derive(Debug)]
struct Late {
    late: Vec<Call>,
    waiting: Vec<Call>,
    /// How many writes that were given up are still to come.
    to_come: watch::Sender<usize>,
}

impl Late {
    fn new(late: &[Call], waiting: &[Call]) -> Self {
        Self { late: late.to_vec(), waiting: waiting.to_vec(), to_come: watch::Sender::new(0) }
    }

    async fn run<T: Send + 'static>(&self, call: Call, work: impl Future<Output = T> + Send + 'static) -> T {
        if self.waiting.contains(&call) {
            // The sender lives in `self`, so waiting cannot fail.
            let _ = self.to_come.subscribe().wait_for(|n| *n == 0).await;
        }
        if !self.late.contains(&call) {
            return work.await;
        }
        let mut going_on = GoingOn { work: Some(work.boxed()), to_come: self.to_come.clone() };
        // Here it can be dropped.
        tokio::task::yield_now().await;
        let done = poll_fn(|cx| match &mut going_on.work {
            Some(work) => work.poll_unpin(cx),
            None => Poll::Pending,
        });
        let done = done.await;
        going_on.work = None;
        done
    }
}

struct GoingOn<T: Send + 'static> {
    work: Option<BoxFuture<'static, T>>,
    to_come: watch::Sender<usize>,
}

impl<T: Send + 'static> Drop for GoingOn<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let to_come = self.to_come.clone();
        to_come.send_modify(|n| *n += 1);
        tokio::spawn(async move {
            pause().await;
            work.await;
            to_come.send_modify(|n| *n -= 1);
        });
    }
}

macro_rules! late {
    ($($call:ident: $name:ident ($($key:ident: $key_type:ty),*; $($rest:ident: $rest_type:ty),*) -> $result:ty;)*) => {
        #[async_trait]
        impl Fault for Late {
            async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
                let call = if !body.is_in_memory() { Call::StreamPut } else { Call::Put };
                let (inner, key, bytes) = (Arc::clone(s.inner), key.clone(), whole(body).await?);
                self.run(call, async move { inner.put(&key, bytes.into(), options).await }).await
            }

            $(async fn $name(&self, s: Sides<'_>, $($key: &$key_type,)* $($rest: $rest_type),*) -> $result {
                let inner = Arc::clone(s.inner);
                $(let $key = $key.to_owned();)*
                self.run(Call::$call, async move { inner.$name($(&$key,)* $($rest),*).await }).await
            })*
        }
    };
}

late! {
    Get: get(key: Key; options: GetOptions) -> Result<Option<Object>>;
    Delete: delete(key: Key; options: DeleteOptions) -> Result<()>;
    Stat: stat(key: Key; options: StatOptions) -> Result<Option<Entry>>;
    List: list(; options: ListOptions) -> Result<ListStream>;
    GetBatch: get_batch(; items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>>;
    PutBatch: put_batch(; items: Vec<(Key, Body, PutOptions)>, options: BatchOptions) -> Result<Vec<Result<Entry>>>;
    DeleteBatch: delete_batch(; items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>>;
    Query: query(; query: Query) -> Result<EntryStream>;
    Clear: clear(prefix: str;) -> Result<()>;
    Copy: copy(from: Key, to: Key; options: CopyOptions) -> Result<Entry>;
    Rename: rename(from: Key, to: Key; options: RenameOptions) -> Result<Entry>;
}
