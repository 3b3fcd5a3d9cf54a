//! A transaction: one of the index. Content is added to the node outside of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cid::Cid;
use storage_core::{Error, ErrorKind, Result, StorageBackend, Transaction, async_trait};
use tokio::{sync::OwnedRwLockReadGuard, time::Instant};

use crate::{
    add::Added,
    store::{Session, Store},
    sweep::TRACE,
};

/// Sees the store as the index's transaction sees it.
#[derive(Debug)]
pub(crate) struct IpfsTransaction {
    pub(crate) session: Session,
}

/// A transaction that is under way.
pub(crate) struct Open {
    pub(crate) index: Arc<dyn StorageBackend>,
    transaction: Arc<dyn Transaction>,
    store: Arc<Store>,
    begun: Instant,
    /// An earlier call failed in the middle, after which nothing is left but to roll back.
    doomed: AtomicBool,
    ended: AtomicBool,
    calm: Mutex<Option<OwnedRwLockReadGuard<()>>>,
    /// Content that it named.
    written: Mutex<Vec<Added>>,
    /// Content that has lost its last key.
    queued: Mutex<Vec<Cid>>,
}

impl Open {
    pub(crate) fn check(&self) -> Result<()> {
        match () {
            () if self.ended.load(Ordering::Acquire) => Err(ended()),
            () if self.doomed.load(Ordering::Acquire) => Err(overtaken()),
            () => Ok(()),
        }
    }

    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    pub(crate) fn wrote(&self, content: Added) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(content);
    }

    pub(crate) fn note(&self, queued: Vec<Cid>) {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).extend(queued);
    }

    /// It is over.
    fn release(&self) {
        self.calm.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What the transaction has pinned, and nobody else has named, goes.
    fn forget(&self) {
        for content in std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.store.sweeper.discard(content);
        }
    }

    fn keep(&self) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.store.sweeper.queued(std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.forget();
    }
}

impl IpfsTransaction {
    pub(crate) async fn begin(session: &Session) -> Result<Self> {
        if session.open.is_some() {
            return Err(Error::unsupported("a transaction within a transaction"));
        }
        session.ready(session.prefix("")).await?;
        let store = session.store.clone();
        store.node()?;
        let calm = store.calm.clone().read_owned().await;
        let transaction = store.index.begin().await?;
        let open = Open {
            index: transaction.clone(),
            transaction,
            store: store.clone(),
            begun: Instant::now(),
            doomed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            calm: Mutex::new(Some(calm)),
            written: Mutex::default(),
            queued: Mutex::default(),
        };
        Ok(Self { session: Session { store, open: Some(Arc::new(open)) } })
    }

    fn end(&self) -> Result<&Open> {
        let open = self.session.open.as_deref().ok_or_else(ended)?;
        if open.ended.swap(true, Ordering::AcqRel) { Err(ended()) } else { Ok(open) }
    }
}

#[async_trait]
impl Transaction for IpfsTransaction {
    async fn commit(&self) -> Result<()> {
        let open = self.end()?;
        // Traces of what was unpinned meanwhile do not stay for ever.
        if open.doomed.load(Ordering::Acquire) || open.begun.elapsed() > TRACE / 4 {
            let _ = open.transaction.rollback().await;
            open.release();
            open.forget();
            return Err(overtaken());
        }
        let committed = open.transaction.commit().await;
        open.release();
        match committed {
            Ok(()) => {
                open.keep();
                Ok(())
            }
            Err(e) => {
                open.forget();
                Err(open.store.own(e))
            }
        }
    }

    async fn rollback(&self) -> Result<()> {
        let open = self.end()?;
        let rolled_back = open.transaction.rollback().await;
        open.release();
        open.forget();
        rolled_back
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

fn overtaken() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "an earlier call of the transaction failed, or it took too long; run the transaction again",
    )
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the transaction has ended; begin another one")
}
