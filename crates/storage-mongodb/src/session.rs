//! How an operation gets at the database: outside of a transaction or within one.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use mongodb::{
    Client, Database,
    bson::{DateTime, Document, doc},
    raw_batch_cursor::RawBatch,
};
use storage_core::{
    BackendInfo, Error, ErrorKind, Result, VersionId,
    pending::{Commit, Keys},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time,
};

use crate::{
    document::{self, Found},
    error,
    task::Tasks,
    transaction::{Open, ended},
};

/// What all sessions of one backend share.
pub(crate) struct Store {
    pub(crate) info: Arc<BackendInfo>,
    pub(crate) client: Client,
    pub(crate) database: Database,
    /// The collection of the keys; the names of the others begin with it.
    pub(crate) collection: String,
    pub(crate) inline_limit: usize,
    /// How many versions are kept, if older ones are.
    pub(crate) versions: Option<u64>,
    /// Used by a single client, who may look before he writes, of a server that does not know all operators.
    pub(crate) unsafe_server: bool,
    pub(crate) timeout: Duration,
    pub(crate) sweep_after: Duration,
    pub(crate) tasks: Tasks,
    pub(crate) closed: AtomicBool,
    /// How far the store's clock is before ours, in milliseconds.
    pub(crate) ahead: AtomicI64,
    /// Whether the server copies chunks by itself, as far as is known.
    pub(crate) copies_chunks: AtomicBool,
}

/// A way to the database. A session of a transaction does not keep it alive.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) store: Arc<Store>,
    transaction: Option<Weak<Mutex<Open>>>,
}

/// What one piece of work has: the database, perhaps a transaction, and the right to write as long as its caller waits.
pub(crate) struct Db {
    pub(crate) store: Arc<Store>,
    pub(crate) open: Option<OwnedMutexGuard<Open>>,
    commit: Option<Commit>,
    lost: bool,
}

impl Store {
    pub(crate) fn name(&self, of: &str) -> String {
        format!("{}.{of}", self.collection)
    }

    /// What was found, with its version where versions are kept.
    pub(crate) fn versioned(&self, mut found: Found) -> Found {
        if self.versions.is_some() {
            found.entry.version = found.entry.etag.as_ref().map(|etag| VersionId::new(etag.as_str()));
        }
        found
    }

    /// The present moment by the store's clock, or a little before.
    pub(crate) fn now(&self) -> DateTime {
        let now = document::date(SystemTime::now());
        DateTime::from_millis(now.timestamp_millis() + self.ahead.load(Ordering::Relaxed))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    /// Runs a command outside of any transaction.
    pub(crate) async fn command(&self, command: Document) -> Result<Document, Failed> {
        let mut command = command;
        command.insert("maxTimeMS", i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX));
        self.plain(command).await
    }

    /// What a query answers with its first batch, as it came from the network.
    pub(crate) async fn batch(&self, command: Document) -> Result<RawBatch, Failed> {
        let mut command = command;
        command.insert("maxTimeMS", i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX));
        let batch = async {
            let mut answers = self.database.run_cursor_command(command).batch().await?;
            answers.try_next().await
        };
        match time::timeout(self.timeout, batch).await {
            Ok(Ok(Some(batch))) => Ok(batch),
            Ok(Ok(None)) => Err(Failed { error: error::unreadable(), definite: false }),
            Ok(Err(e)) => Err(Failed { error: error::from_driver(&e), definite: error::is_definite(&e) }),
            Err(_) => Err(Failed { error: error::timed_out(), definite: false }),
        }
    }

    /// The same for commands that do not take `maxTimeMS`.
    pub(crate) async fn plain(&self, command: Document) -> Result<Document, Failed> {
        match time::timeout(self.timeout, self.database.run_command(command)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(Failed { error: error::from_driver(&e), definite: error::is_definite(&e) }),
            Err(_) => Err(Failed { error: error::timed_out(), definite: false }),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Otherwise the driver's tasks end only when the server answers them the next time.
        let client = self.client.clone();
        self.tasks.runtime.spawn(async move { client.shutdown().immediate(true).await });
    }
}

/// Why a command failed, and whether it is certain that it did nothing.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) definite: bool,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Db {
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The point of no return: see [`storage_core::pending`].
    pub(crate) fn begin(&self) -> Result<()> {
        self.commit.as_ref().map_or(Ok(()), Commit::begin)
    }

    /// Whether a write took effect, or still will, is not known.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
    }

    /// A command that changes nothing.
    pub(crate) async fn read(&mut self, command: Document) -> Result<Document> {
        self.run(command).await.map_err(Error::from)
    }

    /// A command that writes. Its statements' own errors stand in the answer, except in a transaction, which they end.
    pub(crate) async fn write(&mut self, mut command: Document) -> Result<Document> {
        self.begin()?;
        let within = self.in_transaction();
        if !within {
            command.insert("writeConcern", doc! { "w": "majority", "j": true });
        }
        let failed = match self.run(command).await {
            Ok(answer) => match error::write_concern(&answer) {
                None => {
                    let codes = error::write_errors(&answer);
                    if within && let (Some((_, code)), Some(open)) = (codes.first(), &mut self.open) {
                        open.doom();
                        return Err(error::from_code(*code));
                    }
                    return Ok(answer);
                }
                Some(error) => Failed { error, definite: false },
            },
            Err(failed) => failed,
        };
        if failed.definite || within {
            return Err(failed.error);
        }
        if failed.error.kind() == ErrorKind::Timeout {
            self.lose();
        }
        Err(failed.error.ambiguous())
    }

    async fn run(&mut self, command: Document) -> Result<Document, Failed> {
        match &mut self.open {
            None => self.store.command(command).await,
            Some(open) => open.command(&self.store, command).await.map_err(|error| Failed { error, definite: true }),
        }
    }

    /// The documents of a `find` or `aggregate`, and whether there are more than one answer holds.
    pub(crate) async fn documents(&mut self, command: Document) -> Result<(Vec<Document>, bool)> {
        let collection =
            command.get_str("find").or_else(|_| command.get_str("aggregate")).unwrap_or_default().to_owned();
        let mut answer = self.read(command).await?;
        let mut cursor = match answer.remove("cursor") {
            Some(mongodb::bson::Bson::Document(cursor)) => cursor,
            _ => return Err(error::unreadable()),
        };
        let id = cursor.get_i64("id").unwrap_or_default();
        let batch = match cursor.remove("firstBatch") {
            Some(mongodb::bson::Bson::Array(batch)) => batch,
            _ => return Err(error::unreadable()),
        };
        if id != 0 && !self.in_transaction() {
            // The next page is a `find` of its own, which any server can answer.
            let store = self.store.clone();
            let kill = doc! { "killCursors": collection, "cursors": [id] };
            self.store.tasks.runtime.spawn(async move {
                let _ = store.plain(kill).await;
            });
        }
        let documents = batch.into_iter().filter_map(|document| match document {
            mongodb::bson::Bson::Document(document) => Some(document),
            _ => None,
        });
        Ok((documents.collect(), id != 0))
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if let Some(commit) = self.commit.take().filter(|_| self.lost) {
            commit.lose();
        }
    }
}

impl Session {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, transaction: None }
    }

    /// A session of a transaction.
    pub(crate) fn within(&self, open: &Arc<Mutex<Open>>) -> Self {
        Self { store: self.store.clone(), transaction: Some(Arc::downgrade(open)) }
    }

    pub(crate) fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Runs a job that reads or changes these keys, in a task of its own.
    pub(crate) async fn run<T, F>(
        &self,
        keys: Keys,
        touches: Touches<'_>,
        job: impl FnOnce(Db) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.store.check_open()?;
        let open = self.transaction.as_ref().map(Weak::upgrade).map(|open| open.ok_or_else(ended)).transpose()?;
        let store = self.store.clone();
        let work = self.store.tasks.run(open.is_none().then_some(touches), keys, |commit| async move {
            let open = match open {
                None => None,
                Some(open) => {
                    let open = open.lock_owned().await;
                    // A job that is dropped half way would leave its first half in the transaction.
                    commit.begin()?;
                    Some(open)
                }
            };
            job(Db { store, open, commit: Some(commit), lost: false }).await
        });
        work.await
    }

    pub(crate) async fn health(&self) -> Result<()> {
        self.store.check_open()?;
        let command =
            doc! { "find": self.store.name("schema"), "filter": { "_id": "storage" }, "limit": 1, "singleBatch": true };
        let run = self.run(Keys::prefix(""), Touches::Nothing, |mut db| async move { db.documents(command).await });
        match run.await?.0.is_empty() {
            true => Err(Error::new(ErrorKind::Corrupt, "the record of the schema is missing; restore a backup")),
            false => Ok(()),
        }
    }
}

/// Which writes that were given up a call has to wait for.
#[derive(Clone, Copy)]
pub(crate) enum Touches<'k> {
    Nothing,
    Keys(&'k [storage_core::Key]),
    Prefix(&'k str),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("collection", &self.store.collection).finish_non_exhaustive()
    }
}
