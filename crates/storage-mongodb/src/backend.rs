//! The backend: connects, and hands every call to its session.

use std::{
    future::IntoFuture,
    sync::{Arc, atomic::Ordering},
};

use storage_config::ConnectionConfig;
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, GetOptions, Key, ListOptions,
    ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend, Transaction,
    async_trait,
};
use tokio::time;

use crate::{Config, batch, open, session::Session, transaction::MongoTransaction};

/// A store in a MongoDB collection. Clones share the connections; disconnecting any closes them.
#[derive(Clone, Debug)]
pub struct Mongo {
    session: Session,
}

impl Mongo {
    /// Connects as [`Config::from_connection`] reads a URI: `mongodb://user:password@host/database`.
    ///
    /// # Errors
    /// As [`Mongo::connect`].
    pub async fn open(uri: &str) -> Result<Self> {
        Self::connect(Config::from_connection(&ConnectionConfig::new(uri))?).await
    }

    /// Connects, and creates collections and indexes where there are none. Needs a tokio runtime, which then does all the work.
    ///
    /// # Errors
    /// `Config` for settings out of range, a collection that was not made by this crate or by a newer version of it, and a
    /// server that breaks what every write rests on; `Unauthenticated`; `PermissionDenied`; `Unavailable` for a server that
    /// cannot be reached.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self { session: open::open(config).await? })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Removes what writes of large values left that were never finished, as connecting does.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn sweep(&self) -> Result<()> {
        self.session.store.check_open()?;
        open::sweep(&self.session.store).await
    }
}

/// What the backend and a transaction have in common: everything that a session does.
macro_rules! through_session {
    ($type:ty { $($own:tt)* }) => {
        #[async_trait]
        impl StorageBackend for $type {
            fn info(&self) -> &BackendInfo {
                &self.session.store.info
            }

            async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
                self.session.get(key, options).await
            }

            async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
                self.session.put(key, body, options).await
            }

            async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
                self.session.delete(key, options).await
            }

            async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
                self.session.stat(key, options).await
            }

            async fn list(&self, options: ListOptions) -> Result<ListStream> {
                self.session.list(options).await
            }

            async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
                self.session.get_batch(items).await
            }

            async fn versions(&self, key: &Key) -> Result<EntryStream> {
                self.session.versions(key).await
            }

            async fn query(&self, query: Query) -> Result<EntryStream> {
                self.session.query(query).await
            }

            async fn clear(&self, prefix: &str) -> Result<()> {
                self.session.clear(prefix).await
            }

            async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
                self.session.copy(from, to, options).await
            }

            async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
                self.session.rename(from, to, options).await
            }

            async fn health(&self) -> Result<()> {
                self.session.health().await
            }

            $($own)*
        }
    };
}

through_session!(Mongo {
    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        match options.atomic {
            true => batch::atomic(self, async |within| within.put_batch(items, options).await).await,
            false => self.session.put_batch(items).await,
        }
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        match options.atomic {
            true => batch::atomic(self, async |within| within.delete_batch(items, options).await).await,
            false => self.session.delete_batch(items).await,
        }
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(MongoTransaction::begin(&self.session).await?))
    }

    async fn disconnect(&self) -> Result<()> {
        let store = &self.session.store;
        if !store.closed.swap(true, Ordering::AcqRel) {
            // The driver waits for every session that is alive, which may be for ever. When it is done, the runtime may end: tasks of
            // the driver that are cut off panic.
            let (client, timeout) = (store.client.clone(), store.timeout);
            let shutdown = async move { time::timeout(timeout, client.shutdown().immediate(true).into_future()).await };
            // Nothing is to be done about one that does not end.
            let _ = store.tasks.runtime.spawn(shutdown).await;
        }
        Ok(())
    }
});

through_session!(MongoTransaction {
    // Both are parts of the transaction; an atomic one that fails ends it.
    async fn put_batch(&self, items: Vec<(Key, Body, PutOptions)>, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        let results = self.session.put_batch(items).await?;
        self.whole(results, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let results = self.session.delete_batch(items).await?;
        self.whole(results, options).await
    }
});
