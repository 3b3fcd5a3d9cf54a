//! A transaction: a session of the server, and its end.

use std::{fmt, sync::Arc, time::Duration};

use mongodb::{
    ClientSession,
    bson::{Document, oid::ObjectId},
    error::{Error as DriverError, TRANSIENT_TRANSACTION_ERROR},
    options::{ReadConcern, TransactionOptions, WriteConcern},
};
use storage_core::{BatchOptions, Error, ErrorKind, Key, Result, Transaction, async_trait, pending::Keys};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};

use crate::{
    error, files,
    session::{Db, Session, Store, Touches},
};

/// How long a commit is made again, and the first and the longest pause: those of the drivers' specification.
const COMMITTING: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Sees the store as it was when it began, with its own writes.
pub(crate) struct MongoTransaction {
    pub(crate) session: Session,
    /// The only owner: streams that came out of the transaction end with it.
    open: Option<Arc<Mutex<Open>>>,
}

/// A transaction that is under way.
pub(crate) struct Open {
    /// `None` once it has ended.
    session: Option<ClientSession>,
    /// An earlier call failed on the server, after which nothing is left but to roll back.
    doomed: bool,
    /// The files that it wrote, and those that it replaced or deleted.
    pub(crate) written: Vec<ObjectId>,
    pub(crate) replaced: Vec<(ObjectId, Key)>,
}

impl Open {
    /// Begins again while another member of the replica set takes over.
    pub(crate) async fn begin(store: &Store) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::begin_once(store).await {
                Err(e) if e.kind() == ErrorKind::Conflict && begun.elapsed() < store.timeout => {
                    time::sleep(Duration::from_millis(20)).await;
                }
                done => return done,
            }
        }
    }

    async fn begin_once(store: &Store) -> Result<Self> {
        let options = TransactionOptions::builder()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .build();
        let begin = async {
            let mut session = store.client.start_session().await?;
            session.start_transaction().with_options(options).await?;
            Ok::<_, DriverError>(session)
        };
        let session = time::timeout(store.timeout, begin).await.map_err(|_| error::timed_out())?;
        let session = session.map_err(|e| error::from_driver(&e))?;
        let mut open = Self { session: Some(session), doomed: false, written: Vec::new(), replaced: Vec::new() };
        // What it sees is settled by its first command.
        let first =
            mongodb::bson::doc! { "find": &store.collection, "filter": { "_id": "" }, "limit": 1, "singleBatch": true };
        open.command(store, first).await?;
        Ok(open)
    }

    pub(crate) fn doom(&mut self) {
        self.doomed = true;
    }

    pub(crate) async fn command(&mut self, store: &Store, command: Document) -> Result<Document> {
        let session = match &mut self.session {
            None => return Err(ended()),
            Some(_) if self.doomed => return Err(overtaken()),
            Some(session) => session,
        };
        let run = store.database.run_command(command).session(session);
        match time::timeout(store.timeout, run).await {
            Ok(Ok(answer)) => Ok(answer),
            // The server has ended it and done nothing, as when another member takes over.
            Ok(Err(e)) if e.contains_label(TRANSIENT_TRANSACTION_ERROR) && error::is_said_by_server(&e) => {
                self.doomed = true;
                Err(error::transient(&e))
            }
            Ok(Err(e)) => {
                self.doomed = true;
                Err(error::from_driver(&e))
            }
            Err(_) => {
                self.doomed = true;
                Err(error::timed_out())
            }
        }
    }

    async fn abort(&mut self, store: &Store) -> Result<()> {
        let Some(mut session) = self.session.take() else { return Err(ended()) };
        // If it fails, the server ends the transaction by itself.
        let _ = time::timeout(store.timeout, session.abort_transaction()).await;
        Ok(())
    }

    /// Commits when leases name the files that the commit is about to give to a key, and to take from one.
    async fn commit_with_files(&mut self, store: &Store) -> Result<()> {
        let leased = self.lease_files(store).await;
        if leased.is_err() {
            let _ = self.abort(store).await;
            return leased;
        }
        self.commit(store).await
    }

    async fn lease_files(&self, store: &Store) -> Result<()> {
        for file in &self.written {
            files::commit_lease(store, *file).await?;
        }
        for (file, key) in &self.replaced {
            files::lease(store, *file, key, "replaced").await?;
        }
        Ok(())
    }

    /// Commits, again as long as the server cannot tell whether it has: for as long as the drivers' specification of transactions says,
    /// or `timeout` if that is shorter, and with its pauses.
    async fn commit(&mut self, store: &Store) -> Result<()> {
        let Some(mut session) = self.session.take() else { return Err(ended()) };
        let limit = store.timeout.min(COMMITTING);
        let (begun, mut pause) = (Instant::now(), PAUSE);
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let unknown = match time::timeout(left, session.commit_transaction()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) if error::may_be_committed(&e) => error::from_driver(&e),
                Ok(Err(e)) if error::is_definite(&e) => return Err(error::from_driver(&e)),
                Ok(Err(e)) => return Err(error::from_driver(&e).ambiguous()),
                Err(_) => return Err(error::timed_out().ambiguous()),
            };
            let sleep = pause.mul_f64(fastrand::f64());
            if begun.elapsed() + sleep >= limit {
                return Err(unknown.ambiguous());
            }
            time::sleep(sleep).await;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
    }
}

impl MongoTransaction {
    pub(crate) async fn begin(session: &Session) -> Result<Self> {
        if !session.store.info.capabilities.transactions {
            return Err(Error::unsupported("transactions"));
        }
        if session.in_transaction() {
            return Err(Error::unsupported("a transaction within a transaction"));
        }
        let run = session.run(Keys::prefix(""), Touches::Prefix(""), |db| async move { Open::begin(&db.store).await });
        let open = Arc::new(Mutex::new(run.await?));
        Ok(Self { session: session.within(&open), open: Some(open) })
    }

    /// The results of a batch. Of an atomic one that failed, the transaction can only forget what it wrote.
    pub(crate) async fn whole<T>(&self, results: Vec<Result<T>>, options: BatchOptions) -> Result<Vec<Result<T>>> {
        if !options.atomic {
            return Ok(results);
        }
        let all = results.into_iter().collect::<Result<Vec<T>>>();
        if all.is_err() {
            let doom = |mut db: Db| async move {
                db.open.iter_mut().for_each(|open| open.doom());
                Ok(())
            };
            self.session.run(Keys::prefix(""), Touches::Nothing, doom).await?;
        }
        Ok(all?.into_iter().map(Ok).collect())
    }

    async fn end(&self, commit: bool) -> Result<()> {
        let end = move |mut db: Db| async move { end(&mut db, commit).await };
        self.session.run(Keys::prefix(""), Touches::Nothing, end).await
    }
}

/// Commits or rolls back, and does with the files what follows from it.
async fn end(db: &mut Db, commit: bool) -> Result<()> {
    let store = db.store.clone();
    let Some(open) = &mut db.open else { return Err(ended()) };
    if open.session.is_none() {
        return Err(ended());
    }
    let commits = commit && !open.doomed;
    let done = match commits {
        true => open.commit_with_files(&store).await,
        false => open.abort(&store).await.and(if commit { Err(overtaken()) } else { Ok(()) }),
    };
    let (written, replaced) = (std::mem::take(&mut open.written), std::mem::take(&mut open.replaced));
    match &done {
        Ok(()) if commits => {
            for file in &written {
                files::end_lease(&store, *file).await;
            }
            for (file, _) in &replaced {
                files::discard(&store, *file).await;
            }
        }
        // The next sweep finds out what became of the files.
        Err(e) if e.is_ambiguous() => {
            if e.kind() == ErrorKind::Timeout {
                db.lose();
            }
        }
        _ => {
            files::discard_all(&store, &written).await;
            if commits {
                for (file, _) in &replaced {
                    files::end_lease(&store, *file).await;
                }
            }
        }
    }
    done
}

impl fmt::Debug for MongoTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoTransaction").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transaction for MongoTransaction {
    async fn commit(&self) -> Result<()> {
        self.end(true).await
    }

    async fn rollback(&self) -> Result<()> {
        self.end(false).await
    }
}

impl Drop for MongoTransaction {
    fn drop(&mut self) {
        let (Some(open), store) = (self.open.take(), self.session.store.clone()) else { return };
        let runtime = store.tasks.runtime.clone();
        runtime.spawn(async move {
            let mut open = open.lock().await;
            if open.session.is_some() {
                let _ = open.abort(&store).await;
                files::discard_all(&store, &std::mem::take(&mut open.written)).await;
            }
        });
    }
}

pub(crate) fn overtaken() -> Error {
    Error::new(ErrorKind::Conflict, "another writer was faster, or an earlier call failed; run the transaction again")
}

pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transaction has ended; begin another one")
}
