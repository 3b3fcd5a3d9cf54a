//! The backend: connects, and hands every call to its session.

use std::sync::Arc;

use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, GetOptions, Key,
    ListOptions, ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, Storage, StorageBackend,
    Transaction, async_trait, defaults,
};

use crate::{
    Config, Exported, RemotePin,
    change::distinct,
    export,
    node::Node,
    open, query, read,
    store::Session,
    sweep::{self, What},
    transaction::IpfsTransaction,
};

/// A store on an IPFS node. Clones share it; disconnecting any ends all.
#[derive(Clone, Debug)]
pub struct Ipfs {
    pub(crate) session: Session,
}

impl Ipfs {
    /// Connects to a node, or to a gateway to read only. The index is any storage with conditional writes and transactions that
    /// survives as long as the values shall. Needs a tokio runtime, which then does the work.
    ///
    /// # Errors
    /// `Config` for settings out of range, an index that cannot be one or is another store's, an address where there is no node, a
    /// node that is too old or used by another store; `Unauthenticated`; `PermissionDenied`; `Unavailable` for a node that cannot
    /// be reached.
    pub async fn connect(config: Config, index: Storage) -> Result<Self> {
        Self::with_index(config, index.backend().clone(), false).await
    }

    /// An index that is the store's own is disconnected with it.
    pub(crate) async fn with_index(config: Config, index: Arc<dyn StorageBackend>, own: bool) -> Result<Self> {
        let store = open::open(config, index, own).await?;
        Ok(Self { session: Session::new(store) })
    }

    /// Builds the index anew from an [export](Ipfs::export) on the node: keys, metadata and sizes are those of the export, dates and etags
    /// new. What was put later is not found. The index must be empty, unless an earlier call was interrupted.
    ///
    /// # Errors
    /// As [`Ipfs::connect`]; `Config` for a path of MFS without an export, and an index that is not empty; `Corrupt` for a manifest that is not
    /// whole.
    pub async fn rebuild(config: Config, index: Storage, path: &str) -> Result<Self> {
        let node = Arc::new(Node::new(&config)?);
        let (root, id) = export::store_of(&node, path).await?;
        open::adopt(&**index.backend(), &id).await?;
        let store = Self::connect(config, index).await?;
        store.session.name_all(root).await?;
        Ok(store)
    }

    /// Writes all keys to a directory of MFS, as a tree to browse and a manifest from which [`Ipfs::rebuild`] makes an index again. An earlier
    /// export at this path is replaced; for a moment there is none.
    ///
    /// # Errors
    /// `Config` for a path that is not absolute or where there is something else; those of the index and the node.
    pub async fn export(&self, path: &str) -> Result<Exported> {
        self.session.export(path, "").await
    }

    /// The values whose keys begin so, with keys and metadata, as a CAR: a file of blocks that any IPFS node imports.
    ///
    /// # Errors
    /// Those of the index and the node, also at the end of the stream.
    pub async fn export_car(&self, prefix: &str) -> Result<Body> {
        self.session.export_car(prefix).await
    }

    /// Puts everything that [`Ipfs::export_car`] has written, and says how many values that were. What is there under the same keys is replaced.
    ///
    /// # Errors
    /// The body's own; `Corrupt` for what is no such CAR; those of the index and the node. Some values may have been put then.
    pub async fn import_car(&self, car: impl Into<Body> + Send) -> Result<u64> {
        self.session.import_car(car.into()).await
    }

    /// How far the pinning service is with the value of a key; `None` without a value, and for content that the service was never asked for.
    ///
    /// # Errors
    /// `Unsupported` without a pinning service; those of the index and the service.
    pub async fn remote_pin(&self, key: &str) -> Result<Option<RemotePin>> {
        let service = self.session.store.pinning.as_ref().ok_or_else(|| Error::unsupported("remote pins"))?;
        match self.stat(&Key::parse(key)?, StatOptions::new()).await? {
            Some(entry) => service.status(&read::part(&entry)?.cid).await,
            None => Ok(None),
        }
    }

    /// Unpins what no key names any more. That also happens by itself after deletes; only here and after failures are the pins of
    /// the node looked through for what a killed process has left.
    ///
    /// # Errors
    /// Those of the index and the node; a later sweep goes on.
    pub async fn sweep(&self) -> Result<()> {
        self.session.store.check_open()?;
        sweep::sweep(&self.session.store, What::Everything, false).await
    }

    /// Sweeps, and has the node collect all blocks that nothing pins, also those of others.
    ///
    /// # Errors
    /// Those of the index and the node.
    pub async fn gc(&self) -> Result<()> {
        self.sweep().await?;
        self.session.store.node()?.collect().await
    }
}

/// What the backend and a transaction have in common.
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
                self.session.ready(self.session.prefix(&options.prefix)).await?;
                query::list(&*self.session.view(), &self.session.store.names, options).await
            }

            async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
                self.session.get_batch(items).await
            }

            async fn query(&self, query: Query) -> Result<EntryStream> {
                self.session.ready(self.session.prefix(&query.prefix)).await?;
                query::query(&*self.session.view(), &self.session.store.names, query).await
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

through_session!(Ipfs {
    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        match options.atomic && !distinct(items.iter().map(|(key, ..)| key)) {
            true => defaults::put_batch(self, items, options).await,
            false => self.session.put_batch(items, options).await,
        }
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        match options.atomic && !distinct(items.iter().map(|(key, _)| key)) {
            true => defaults::delete_batch(self, items, options).await,
            false => self.session.delete_batch(items, options).await,
        }
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        Ok(Arc::new(IpfsTransaction::begin(&self.session).await?))
    }

    async fn disconnect(&self) -> Result<()> {
        match self.session.store.close() && self.session.store.owns_index {
            true => self.session.store.index.disconnect().await,
            false => Ok(()),
        }
    }
});

through_session!(IpfsTransaction {
    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        self.session.put_batch(items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.session.delete_batch(items, options).await
    }
});
