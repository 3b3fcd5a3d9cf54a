//! The backend: connects, and hands every call to its session.

use std::{sync::Arc, time::Duration};

use storage_core::{
    BackendInfo, BatchOptions, Body, Capabilities, ConnectionConfig, CopyOptions, DeleteOptions, Entry, EntryStream,
    Error, ErrorKind, GetOptions, Isolation, Key, ListOptions, ListStream, Object, PutOptions, Query, RenameOptions,
    Result, StatOptions, StorageBackend, Transaction, async_trait, defaults,
};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    Config,
    dialect::{Tables, sqlite::SqliteDatabase},
    schema,
    session::{Session, Store},
    task::Tasks,
    transaction::SqlTransaction,
};

/// A store in a SQL database. Clones share the connections; disconnecting any closes them.
#[derive(Clone, Debug)]
pub struct Sql {
    session: Session,
}

impl Sql {
    /// Connects as [`Config::from_connection`] reads a URI: `sqlite:path/to.db`.
    ///
    /// # Errors
    /// As [`Sql::connect`].
    pub async fn open(uri: &str) -> Result<Self> {
        Self::connect(Config::from_connection(&ConnectionConfig::new(uri))?).await
    }

    /// Connects, and creates the schema where there is none. Needs a tokio runtime, which then does all the work.
    ///
    /// # Errors
    /// `Config` for settings out of range, a table that was not made by this crate or by a newer version of it; `NotFound` for
    /// a missing directory; `PermissionDenied`; `Corrupt` for a file that is not a database.
    pub async fn connect(config: Config) -> Result<Self> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(ErrorKind::Config, "a SQL database can be connected only in a tokio runtime").with_source(e)
        })?;
        let database = Box::new(SqliteDatabase::new(&config, runtime.clone())?);
        let tables = Tables::new(&config.table, &*database);
        let indexed = schema::prepare(&*database, &tables, &config).await?;
        let session = Session::new(Arc::new(Store {
            info: Arc::new(info()),
            database,
            tables,
            indexed,
            chunk_size: config.chunk_size,
            busy_timeout: config.busy_timeout,
            writer: Arc::new(Semaphore::new(1)),
            tasks: Tasks::new(runtime),
        }));
        session.sweep(config.sweep_after).await;
        Ok(Self { session })
    }
}

fn info() -> BackendInfo {
    let capabilities = Capabilities::new()
        .atomic()
        .streaming()
        .conditional()
        .conditional_delete()
        .unique_etags()
        .transactions()
        .queryable();
    let mut info = BackendInfo::new("sqlite", capabilities);
    info.name = "SQLite".into();
    info.description = env!("CARGO_PKG_DESCRIPTION").into();
    info.version = env!("CARGO_PKG_VERSION").into();
    info.isolation = Isolation::Serializable;
    // SQLite's largest file at its usual page size, <https://www.sqlite.org/limits.html>, rounded down.
    info.limits.value = 16 << 40;
    info.limits.time_granularity = Duration::from_millis(1);
    info
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

            async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
                self.session.stat(key).await
            }

            async fn list(&self, options: ListOptions) -> Result<ListStream> {
                self.session.list(options).await
            }

            async fn get_batch(
                &self,
                items: Vec<(Key, GetOptions)>,
            ) -> Result<Vec<Result<Option<Object>>>> {
                self.session.get_batch(items).await
            }

            async fn put_batch(
                &self,
                items: Vec<(Key, Body, PutOptions)>,
                options: BatchOptions,
            ) -> Result<Vec<Result<Entry>>> {
                self.session.put_batch(items, options).await
            }

            async fn delete_batch(
                &self,
                items: Vec<(Key, DeleteOptions)>,
                options: BatchOptions,
            ) -> Result<Vec<Result<()>>> {
                self.session.delete_batch(items, options).await
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
                if from == to {
                    // Nothing moves; the default knows what the condition then means.
                    return defaults::rename(self, from, to, options).await;
                }
                self.session.rename(from, to, options).await
            }

            async fn is_connected(&self) -> bool {
                self.session.is_connected().await
            }

            $($own)*
        }
    };
}

through_session!(Sql {
    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        let (session, open) = self.session.begin().await?;
        Ok(Arc::new(SqlTransaction::new(session, open)))
    }

    async fn disconnect(&self) -> Result<()> {
        self.session.store.database.close().await;
        Ok(())
    }
});

through_session!(SqlTransaction {});
