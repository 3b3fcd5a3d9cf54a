//! The backend: connects, and hands every call to its session.

use std::sync::Arc;

use storage_config::ConnectionConfig;
use storage_core::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind, GetOptions, Key,
    ListOptions, ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend,
    Transaction, async_trait,
};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    Config,
    dialect::Tables,
    open,
    reserve::Claims,
    schema,
    session::{Session, Store},
    staging::Abandoned,
    task::Tasks,
    transaction::SqlTransaction,
    turn::Turn,
};

/// A store in a SQL database. Clones share the connections; disconnecting any closes them.
#[derive(Clone, Debug)]
pub struct Sql {
    session: Session,
}

impl Sql {
    /// Connects as [`Config::from_connection`] reads a URI: `sqlite:path/to.db`, `postgres://user:password@host/database`.
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
    /// a missing directory or database; `Unauthenticated`; `PermissionDenied`; `Unavailable` for a server that cannot be
    /// reached; `Corrupt` for a file that is not a database.
    pub async fn connect(config: Config) -> Result<Self> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|e| {
            Error::new(ErrorKind::Config, "a SQL database can be connected only in a tokio runtime").with_source(e)
        })?;
        let (database, mut info) = open::database(&config)?;
        let dialect = database.dialect();
        let tables = Tables::new(&config.table, dialect);
        database.watch().await?;
        let indexed = schema::prepare(&*database, &tables, &config).await?;
        database.watch_log().await?;
        info.capabilities.versioning = config.versions.is_some();
        let session = Session::new(Arc::new(Store {
            info: Arc::new(info),
            database,
            dialect,
            tables,
            indexed,
            chunk_size: config.chunk_size,
            busy_timeout: config.busy_timeout,
            versions: config.versions.map(|n| n.get().into()),
            writer: Arc::new(Semaphore::new(if dialect.one_writer() { 1 } else { Semaphore::MAX_PERMITS })),
            turn: Turn::default(),
            claims: Claims::new(config.busy_timeout),
            abandoned: Abandoned::default(),
            tasks: Tasks::new(runtime),
        }));
        session.sweep(config.sweep_after).await;
        Ok(Self { session })
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
                self.session.rename(self, from, to, options).await
            }

            async fn versions(&self, key: &Key) -> Result<EntryStream> {
                match self.session.store.versions {
                    Some(_) => self.session.versions(key).await,
                    None => Err(Error::unsupported("versions")),
                }
            }

            async fn health(&self) -> Result<()> {
                self.session.health().await
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
