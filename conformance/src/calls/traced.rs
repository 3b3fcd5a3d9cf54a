//! A backend whose calls are noted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use storage_core::{
    BackendInfo, BatchOptions, Body, BodyStream, Bytes, CopyOptions, DeleteOptions, Entry, GetOptions, Key,
    ListOptions, Object, PresignOptions, PresignedRequest, PutOptions, Query, RenameOptions, Result, StatOptions,
    StorageBackend, Transaction, async_trait,
};

use super::{
    Calls, describe,
    log::{Returned, UnderWay},
};
/// A backend whose calls are noted.
#[derive(Debug)]
pub(crate) struct Traced<B: ?Sized = dyn StorageBackend> {
    calls: Calls,
    handle: u64,
    inner: Arc<B>,
}

impl<B: ?Sized> Traced<B> {
    pub(crate) fn new(inner: Arc<B>, calls: &Calls) -> Self {
        Self { calls: calls.clone(), handle: calls.handle(), inner }
    }
}

macro_rules! trace {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Traced<B> {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                let keys: &[Vec<Key>] = &[$($argument.keys()),*];
                let keys = keys.concat();
                let text = describe::$name($(&$argument),*);
                let call = self.calls.begin(self.handle, text, keys);
                self.inner.$name($($argument),*).await.noted(call)
            })*
        }
    };
}
storage_core::each_method!(trace);

#[async_trait]
impl Transaction for Traced<dyn Transaction> {
    async fn commit(&self) -> Result<()> {
        let call = self.calls.begin(self.handle, "commit()".into(), Vec::new());
        self.inner.commit().await.noted(call)
    }

    async fn rollback(&self) -> Result<()> {
        let call = self.calls.begin(self.handle, "rollback()".into(), Vec::new());
        self.inner.rollback().await.noted(call)
    }
}

/// The keys that an argument names.
trait Named {
    fn keys(&self) -> Vec<Key> {
        Vec::new()
    }
}

impl Named for &Key {
    fn keys(&self) -> Vec<Key> {
        vec![(*self).clone()]
    }
}

impl<O> Named for Vec<(Key, O)> {
    fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key.clone()).collect()
    }
}

impl Named for Vec<(Key, Body, PutOptions)> {
    fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, ..)| key.clone()).collect()
    }
}

impl Named for &str {}
impl Named for Body {}
impl Named for Query {}
impl Named for GetOptions {}
impl Named for PutOptions {}
impl Named for StatOptions {}
impl Named for DeleteOptions {}
impl Named for ListOptions {}
impl Named for CopyOptions {}
impl Named for RenameOptions {}
impl Named for PresignOptions {}
impl Named for BatchOptions {}

/// Notes what a method returned, and follows it where more is to come.
trait Noted: Sized {
    fn noted(self, call: UnderWay) -> Self;
}

impl Noted for bool {
    fn noted(self, call: UnderWay) -> Self {
        call.end(self.to_string());
        self
    }
}

impl<T: Told> Noted for Result<T> {
    fn noted(self, call: UnderWay) -> Self {
        match self {
            Ok(value) => {
                let outcome = value.told();
                Ok(value.followed(call.end(outcome)))
            }
            Err(e) => {
                call.end(describe::failed(&e));
                Err(e)
            }
        }
    }
}

/// What a successful call returned, in short form.
trait Told: Sized {
    fn told(&self) -> String;

    fn followed(self, returned: Returned) -> Self {
        drop(returned);
        self
    }
}

impl Told for () {
    fn told(&self) -> String {
        "done".into()
    }
}

impl Told for PresignedRequest {
    fn told(&self) -> String {
        "a presigned request".into()
    }
}

impl Told for Entry {
    fn told(&self) -> String {
        describe::entry(self)
    }
}

impl Told for Option<Entry> {
    fn told(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), describe::entry)
    }
}

impl Told for Option<Object> {
    fn told(&self) -> String {
        describe::object(self.as_ref())
    }

    fn followed(self, returned: Returned) -> Self {
        self.map(|mut object| {
            let traced = |pieces: BodyStream| Pieces { inner: pieces.boxed(), returned, seen: 0, what: "bytes" };
            object.body = object.body.map_stream(traced);
            object
        })
    }
}

impl<T> Told for Vec<Result<T>> {
    fn told(&self) -> String {
        let failed = self.iter().filter_map(|item| item.as_ref().err());
        let failed: Vec<String> = failed.take(3).map(describe::failed).collect();
        let failed = if failed.is_empty() { String::new() } else { format!(", among them {}", failed.join(", ")) };
        format!("{} results{failed}", self.len())
    }
}

impl<T: Send + Measured + 'static> Told for BoxStream<'static, Result<T>> {
    fn told(&self) -> String {
        "a stream".into()
    }

    fn followed(self, returned: Returned) -> Self {
        Pieces { inner: self, returned, seen: 0, what: "entries" }.boxed()
    }
}

impl Told for Arc<dyn Transaction> {
    fn told(&self) -> String {
        "a transaction".into()
    }

    fn followed(self, returned: Returned) -> Self {
        Arc::new(Traced::new(self, returned.calls()))
    }
}

/// What a piece of a stream counts for.
trait Measured {
    fn measure(&self) -> usize {
        1
    }
}

impl Measured for Entry {}
impl Measured for storage_core::ListItem {}
impl Measured for Bytes {
    fn measure(&self) -> usize {
        self.len()
    }
}

/// A stream of which it is noted how far it has come.
struct Pieces<T> {
    inner: BoxStream<'static, Result<T>>,
    returned: Returned,
    seen: usize,
    what: &'static str,
}

impl<T: Measured> Stream for Pieces<T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let polled = this.inner.poll_next_unpin(cx);
        let (seen, what) = (this.seen, this.what);
        match &polled {
            Poll::Pending => this.returned.wait(|| format!("{seen} {what}, no end yet")),
            Poll::Ready(next) => {
                this.returned.came();
                match next {
                    Some(Ok(piece)) => this.seen += piece.measure(),
                    Some(Err(e)) => {
                        this.returned.amend(format!("{seen} {what}, then {}", describe::failed(e)));
                    }
                    None => this.returned.amend(format!("{seen} {what}")),
                }
            }
        }
        polled
    }
}
