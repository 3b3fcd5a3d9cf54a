//! A backend that writes down what is called on it, to prove that nothing goes around a layer.

use std::sync::{Arc, Mutex, PoisonError};

use storage_core::{
    BackendInfo, Entry, EntryStream, ListStream, Object, PresignedRequest, Result, StorageBackend, Transaction,
    async_trait,
};

/// Records the name of every trait method that is called on it, and forwards.
///
/// Within a transaction `get` is recorded as `transaction.get`. `info` is not recorded: handles call it all the time.
#[derive(Debug)]
pub struct Recorder<B: ?Sized = dyn StorageBackend> {
    log: Log,
    inner: Arc<B>,
}

/// What was recorded. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    /// Everything since the last call, in order.
    #[must_use]
    pub fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }
}

impl<B: StorageBackend> Recorder<B> {
    /// A recorder around a backend.
    pub fn new(inner: B) -> Self {
        Self { log: Log::default(), inner: Arc::new(inner) }
    }
}

impl<B: ?Sized> Recorder<B> {
    /// The log, which goes on being written.
    #[must_use]
    pub fn log(&self) -> Log {
        self.log.clone()
    }
}

macro_rules! record {
    ($($name:ident [$($parameter:tt)*] [$($argument:tt)*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Recorder<B> {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.log.note(stringify!($name));
                let result = self.inner.$name($($argument)*).await;
                result.followed(&self.log)
            })*
        }

        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl StorageBackend for RecordedTransaction {
            fn info(&self) -> &BackendInfo {
                self.inner.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.log.note(concat!("transaction.", stringify!($name)));
                let result = self.inner.$name($($argument)*).await;
                result.followed(&self.log)
            })*
        }
    };
}
storage_core::each_method!(record);

#[derive(Debug)]
struct RecordedTransaction {
    log: Log,
    inner: Arc<dyn Transaction>,
}

#[async_trait]
impl Transaction for RecordedTransaction {
    async fn commit(&self) -> Result<()> {
        self.log.note("transaction.commit");
        self.inner.commit().await
    }

    async fn rollback(&self) -> Result<()> {
        self.log.note("transaction.rollback");
        self.inner.rollback().await
    }
}

/// Keeps the log with what a method returns: a transaction is recorded too.
trait Followed: Sized {
    fn followed(self, _: &Log) -> Self {
        self
    }
}

impl Followed for Result<Arc<dyn Transaction>> {
    fn followed(self, log: &Log) -> Self {
        let record = |inner| Arc::new(RecordedTransaction { log: log.clone(), inner }) as Arc<dyn Transaction>;
        self.map(record)
    }
}

impl Followed for bool {}
impl Followed for Result<()> {}
impl Followed for Result<Entry> {}
impl Followed for Result<PresignedRequest> {}
impl Followed for Result<Option<Entry>> {}
impl Followed for Result<Option<Object>> {}
impl Followed for Result<ListStream> {}
impl Followed for Result<EntryStream> {}
impl<T> Followed for Result<Vec<Result<T>>> {}
