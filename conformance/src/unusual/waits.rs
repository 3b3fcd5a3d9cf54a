//! A store that does nothing at once.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream, stream::BoxStream};
use storage_core::{
    BackendInfo, Entry, ListOptions, ListStream, Object, PresignedRequest, Result, StorageBackend, Transaction,
    async_trait,
};
use tokio::time::sleep;

use crate::saboteurs::{Fault, Sides};

/// Each call is pending before and after, for this time or once, and so is each piece of a stream, once.
#[derive(Debug)]
pub(super) struct Waits<B: ?Sized> {
    time: Duration,
    inner: Arc<B>,
}

impl<B: ?Sized> Waits<B> {
    pub(super) fn new(inner: Arc<B>, time: Duration) -> Self {
        Self { time, inner }
    }

    async fn wait(&self) {
        if self.time > Duration::ZERO { sleep(self.time).await } else { once().await }
    }
}

/// Pending once. The waker is called before, as by a store that is ready at once on another thread.
fn once() -> impl Future<Output = ()> + Send {
    let mut pending = true;
    poll_fn(move |cx: &mut Context<'_>| {
        if !std::mem::take(&mut pending) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

macro_rules! wait {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Waits<B> {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.wait().await;
                let result = self.inner.$name($($argument),*).await;
                once().await;
                result.slowed(self.time)
            })*
        }
    };
}
storage_core::each_method!(wait);

#[async_trait]
impl Transaction for Waits<dyn Transaction> {
    async fn commit(&self) -> Result<()> {
        self.wait().await;
        let result = self.inner.commit().await;
        once().await;
        result
    }

    async fn rollback(&self) -> Result<()> {
        self.wait().await;
        self.inner.rollback().await
    }
}

/// Only listings, and what they yield, are pending.
#[derive(Debug)]
pub(super) struct Listings;

#[async_trait]
impl Fault for Listings {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        tokio::task::yield_now().await;
        let listing = s.inner.list(options).await?;
        let yielding = listing.then(|item| async {
            tokio::task::yield_now().await;
            item
        });
        Ok(yielding.boxed())
    }
}

/// What a call returned, as slow as the call.
trait Slowed: Sized {
    fn slowed(self, _: Duration) -> Self {
        self
    }
}

impl<T: Slowed> Slowed for Result<T> {
    fn slowed(self, time: Duration) -> Self {
        self.map(|value| value.slowed(time))
    }
}

impl<T: Slowed> Slowed for Vec<Result<T>> {
    fn slowed(self, time: Duration) -> Self {
        self.into_iter().map(|item| item.slowed(time)).collect()
    }
}

impl Slowed for bool {}
impl Slowed for () {}
impl Slowed for Entry {}
impl Slowed for PresignedRequest {}
impl Slowed for Option<Entry> {}

impl Slowed for Option<Object> {
    fn slowed(mut self, _: Duration) -> Self {
        if let Some(object) = &mut self {
            object.body = std::mem::take(&mut object.body).map_stream(hesitant);
        }
        self
    }
}

impl<T: Send + 'static> Slowed for BoxStream<'static, Result<T>> {
    fn slowed(self, _: Duration) -> Self {
        hesitant(self).boxed()
    }
}

impl Slowed for Arc<dyn Transaction> {
    fn slowed(self, time: Duration) -> Self {
        Arc::new(Waits::new(self, time))
    }
}

/// The stream, pending once before each item and before its end.
fn hesitant<S: Stream + Send + Unpin + 'static>(stream: S) -> impl Stream<Item = S::Item> + Send + 'static {
    stream::unfold(stream, |mut stream| async move {
        once().await;
        stream.next().await.map(|item| (item, stream))
    })
}
