//! Transactions of clients, each with a lease: one that nobody asks anything is rolled back.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use data_encoding::BASE64URL_NOPAD;
use storage_core::{ErrorKind, Storage, Tx};
use storage_rest_wire::code;

use crate::answer::Failure;

/// All that are open.
#[derive(Default)]
pub(crate) struct Transactions {
    open: Mutex<HashMap<String, Arc<Open>>>,
}

struct Open {
    tx: Tx,
    owner: String,
    use_: Mutex<Use>,
}

struct Use {
    requests: usize,
    last: Instant,
}

/// A request that belongs to a transaction, which is not rolled back meanwhile.
pub(crate) struct Lease(Arc<Open>);

impl Transactions {
    /// Begins one, and returns its id.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        storage: &Storage,
        owner: &str,
        most: usize,
        lease: Duration,
    ) -> Result<String, Failure> {
        let count = || self.lock().values().filter(|open| open.owner == owner).count();
        if count() >= most {
            return Err(Failure::new(ErrorKind::RateLimited, "too many transactions are open; end one of them"));
        }
        let tx = storage.begin().await?;
        // Whoever knows the id may use the transaction, if it also has the token.
        let mut unique = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut unique)
            .map_err(|_| Failure::new(ErrorKind::Other, "the system has no random numbers"))?;
        let id = BASE64URL_NOPAD.encode(&unique);
        let use_ = Mutex::new(Use { requests: 0, last: Instant::now() });
        self.lock().insert(id.clone(), Arc::new(Open { tx, owner: owner.to_owned(), use_ }));
        tokio::spawn(self.clone().watch(id.clone(), lease));
        Ok(id)
    }

    /// The transaction, for a request.
    pub(crate) fn lease(&self, id: &str, owner: &str) -> Result<Lease, Failure> {
        let open = self.lock().get(id).filter(|open| open.owner == owner).cloned().ok_or_else(ended)?;
        open.in_use().requests += 1;
        Ok(Lease(open))
    }

    /// Takes the transaction out, to end it.
    pub(crate) fn take(&self, id: &str, owner: &str) -> Result<Tx, Failure> {
        let mut all = self.lock();
        match all.get(id) {
            Some(open) if open.owner == owner => {}
            _ => return Err(ended()),
        }
        all.remove(id).map(|open| open.tx.clone()).ok_or_else(ended)
    }

    /// Rolls all of them back.
    pub(crate) async fn end(&self) {
        let all: Vec<Arc<Open>> = self.lock().drain().map(|(_, open)| open).collect();
        for open in all {
            // Dropping it rolls it back, too.
            let _ = open.tx.clone().rollback().await;
        }
    }

    /// Rolls it back when nobody has used it for so long.
    async fn watch(self: Arc<Self>, id: String, lease: Duration) {
        loop {
            let Some(until) = self.lock().get(&id).map(|open| open.until(lease)) else { return };
            tokio::time::sleep_until(until.into()).await;
            let expired = {
                let mut all = self.lock();
                let expired = all.get(&id).is_some_and(|open| open.is_abandoned(lease));
                if expired { all.remove(&id) } else { None }
            };
            if let Some(open) = expired {
                tracing::info!(target: "storage_server", owner = open.owner, "a transaction was abandoned and is rolled back");
                let _ = open.tx.clone().rollback().await;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn in_use(&self) -> MutexGuard<'_, Use> {
        self.use_.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to look again whether it was abandoned.
    fn until(&self, lease: Duration) -> Instant {
        let used = self.in_use();
        let begin = if used.requests > 0 { Instant::now() } else { used.last };
        begin + lease
    }

    fn is_abandoned(&self, lease: Duration) -> bool {
        let used = self.in_use();
        used.requests == 0 && used.last.elapsed() >= lease
    }
}

impl Lease {
    /// The store as the transaction sees it.
    pub(crate) fn storage(&self) -> Storage {
        (*self.0.tx).clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut used = self.0.in_use();
        used.requests -= 1;
        used.last = Instant::now();
    }
}

fn ended() -> Failure {
    Failure::new(ErrorKind::Closed, "the transaction has ended; begin another one").code(code::TRANSACTION_ENDED)
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactions").field("open", &self.lock().len()).finish()
    }
}
