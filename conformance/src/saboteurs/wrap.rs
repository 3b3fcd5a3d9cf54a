//! A backend around another, with one fault.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use storage_core::{
    BackendInfo, Body, Bytes, Error, GetOptions, Key, ListItem, ListOptions, Result, StorageBackend, Transaction,
    async_trait, defaults,
};

/// The two sides of a method: what is called, and the sound backend below.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    /// The backend with the fault.
    pub outer: &'a dyn StorageBackend,
    /// The backend without.
    pub inner: &'a Arc<dyn StorageBackend>,
}

macro_rules! sound {
    (get_batch $s:ident $($argument:ident)*) => { sound!(derived get_batch $s $($argument)*) };
    (put_batch $s:ident $($argument:ident)*) => { sound!(derived put_batch $s $($argument)*) };
    (delete_batch $s:ident $($argument:ident)*) => { sound!(derived delete_batch $s $($argument)*) };
    (query $s:ident $($argument:ident)*) => { sound!(derived query $s $($argument)*) };
    (clear $s:ident $($argument:ident)*) => { sound!(derived clear $s $($argument)*) };
    (copy $s:ident $($argument:ident)*) => { sound!(derived copy $s $($argument)*) };
    (rename $s:ident $($argument:ident)*) => { sound!(derived rename $s $($argument)*) };
    (derived $name:ident $s:ident $($argument:ident)*) => {
        if Self::DERIVED {
            defaults::$name($s.outer, $($argument),*).await
        } else {
            $s.inner.$name($($argument),*).await
        }
    };
    (versions $s:ident $key:ident) => {
        if $s.outer.info().capabilities.versioning {
            $s.inner.versions($key).await
        } else {
            Err(Error::unsupported("versions"))
        }
    };
    (begin $s:ident) => {
        if $s.outer.info().capabilities.transactions {
            $s.inner.begin().await
        } else {
            Err(Error::unsupported("transactions"))
        }
    };
    // The store below is shared by several instances; each handle closes itself.
    (disconnect $s:ident) => { { let _ = $s; Ok(()) } };
    ($name:ident $s:ident $($argument:ident)*) => { $s.inner.$name($($argument),*).await };
}

macro_rules! fault {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        /// One fault: what is not overridden is sound.
        #[async_trait]
        pub trait Fault: Debug + Send + Sync + 'static {
            /// Whether batches, queries, clear, copy and rename are built on the methods with the fault.
            const DERIVED: bool = false;

            /// What it says about itself.
            fn declare(&self, info: &mut BackendInfo) {
                let _ = info;
            }

            $(
                /// The method of the trait.
                async fn $name(&self, s: Sides<'_>, $($parameter)*) -> $result {
                    sound!($name s $($argument)*)
                }
            )*

            /// The end of a transaction that carries the fault.
            async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
                tx.commit().await
            }

            /// The other end of it.
            async fn rollback(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
                tx.rollback().await
            }

            /// When it is dropped.
            fn dropped(&self, tx: &Arc<dyn Transaction>) {
                let _ = tx;
            }
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<F: Fault> StorageBackend for Wrapped<F> {
            fn info(&self) -> &BackendInfo {
                &self.info
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                let sides = Sides { outer: self, inner: &self.inner };
                self.fault.$name(sides, $($argument),*).await
            })*
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<F: Fault> StorageBackend for Within<F> {
            fn info(&self) -> &BackendInfo {
                &self.wrapped.info
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.wrapped.$name($($argument),*).await
            })*
        }
    };
}
storage_core::each_method!(fault);

/// The backend with the fault.
pub(crate) fn wrap<F: Fault>(inner: Arc<dyn StorageBackend>, fault: F) -> super::Opening {
    let wrapped: Arc<dyn StorageBackend> = Arc::new(Wrapped::new(inner, fault));
    Box::pin(std::future::ready(Ok(wrapped)))
}

/// The transaction with the fault.
pub(crate) fn within<F: Fault>(tx: Arc<dyn Transaction>, fault: F) -> Arc<dyn Transaction> {
    let wrapped = Wrapped::new(tx.clone(), fault);
    Arc::new(Within { wrapped, tx })
}

/// A backend with a fault around it.
#[derive(Debug)]
pub(super) struct Wrapped<F> {
    fault: F,
    inner: Arc<dyn StorageBackend>,
    info: BackendInfo,
}

impl<F: Fault> Wrapped<F> {
    pub(super) fn new(inner: Arc<dyn StorageBackend>, fault: F) -> Self {
        let mut info = inner.info().clone();
        fault.declare(&mut info);
        Self { fault, inner, info }
    }
}

#[derive(Debug)]
struct Within<F: Fault> {
    wrapped: Wrapped<F>,
    tx: Arc<dyn Transaction>,
}

#[async_trait]
impl<F: Fault> Transaction for Within<F> {
    async fn commit(&self) -> Result<()> {
        self.wrapped.fault.commit(&self.tx).await
    }

    async fn rollback(&self) -> Result<()> {
        self.wrapped.fault.rollback(&self.tx).await
    }
}

impl<F: Fault> Drop for Within<F> {
    fn drop(&mut self) {
        self.wrapped.fault.dropped(&self.tx);
    }
}

/// The whole body.
pub(super) async fn whole(body: Body) -> Result<Bytes> {
    body.bytes(u64::MAX).await
}

/// The current value.
pub(super) async fn value(s: Sides<'_>, key: &Key) -> Result<Option<Bytes>> {
    match s.inner.get(key, GetOptions::new()).await? {
        Some(object) => whole(object.body).await.map(Some),
        None => Ok(None),
    }
}

/// Everything that a listing of the sound backend yields.
pub(super) async fn listed(s: Sides<'_>, options: ListOptions) -> Result<Vec<ListItem>> {
    s.inner.list(options).await?.try_collect().await
}

/// Everything as a stream.
pub(super) fn streamed<T: Send + 'static>(items: Vec<T>) -> BoxStream<'static, Result<T>> {
    stream::iter(items.into_iter().map(Ok)).boxed()
}

/// Long enough for another writer to come in between.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(4)).await;
}
