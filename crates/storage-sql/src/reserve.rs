//! The turn of transactions where there is one writer at a time. A transaction sees the store as it was when it began, and
//! may not write once anybody else has; beside writers without a pause it would never come to that. So after one has lost, the
//! next ones take their turn among the writers when they begin, and keep it for a moment until they write. One that has not
//! written by then goes on without it, as all do where nothing was lost.

use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use storage_core::{ErrorKind, Result};
use tokio::{sync::Mutex, task::AbortHandle, time::sleep};

use crate::{
    dialect::Begin,
    session::{Store, permit},
    transaction::Open,
};

/// How many of the next transactions have a reservation after one has lost, and how many at most.
const CREDIT: u32 = 4;
const MOST: u32 = 16;
/// How long a reservation lasts: at least, and at most. In between it is twice as long as the last loser took to its first write.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);
/// How long a transaction waits for its turn before it begins without.
const PATIENCE: Duration = Duration::from_millis(250);

/// What transactions have lost to other writers.
#[derive(Debug)]
pub(crate) struct Claims {
    /// How many reservations may be taken, and how long each lasts.
    state: StdMutex<(u32, Duration)>,
    longest: Duration,
}

impl Claims {
    /// A writer that waits for no longer than this must not wait for a reservation in vain.
    pub(crate) fn new(busy_timeout: Duration) -> Self {
        Self { state: StdMutex::new((0, SHORTEST)), longest: LONGEST.min(busy_timeout / 4) }
    }

    /// A transaction could not write any more, so long after it began.
    pub(crate) fn lost(&self, after: Duration) {
        self.change(|(credit, lasts)| {
            *credit = MOST.min(*credit + CREDIT);
            *lasts = (after * 2).clamp(SHORTEST, LONGEST.max(SHORTEST));
        });
    }

    /// A reservation was of use.
    pub(crate) fn used(&self) {
        self.change(|(credit, _)| *credit = MOST.min(*credit + 1));
    }

    /// A reservation that lasts so long, if there is one.
    fn take(&self) -> Option<Duration> {
        if self.longest < SHORTEST {
            return None;
        }
        self.change(|(credit, lasts)| {
            let left = credit.checked_sub(1)?;
            *credit = left;
            Some(self.longest.min(*lasts))
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut (u32, Duration)) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The end of a reservation, which is given up when this is dropped.
pub(crate) struct Expiry(Option<AbortHandle>);

impl Expiry {
    /// Lets it come to its end.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        if let Some(expiry) = &self.0 {
            expiry.abort();
        }
    }
}

/// A transaction that has its turn, if there is a claim to one and it comes in time.
pub(crate) async fn begin(store: &Arc<Store>) -> Result<Option<Arc<Mutex<Open>>>> {
    let Some(lasts) = store.claims.take() else {
        return Ok(None);
    };
    let Some(permit) = permit(store, PATIENCE).await? else {
        return Ok(None);
    };
    let mut connection = store.database.acquire().await?;
    let begun = store.turn.begin(&mut *connection, store.dialect, &store.tables, Begin::Write, PATIENCE).await;
    match begun {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Conflict | ErrorKind::Unavailable) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    }
    let open = Arc::new_cyclic(|open: &std::sync::Weak<Mutex<Open>>| {
        let (open, store_then) = (open.clone(), Arc::downgrade(store));
        let expiry = store.tasks.runtime.spawn(async move {
            sleep(lasts).await;
            if let (Some(open), Some(store)) = (open.upgrade(), store_then.upgrade()) {
                open.lock().await.expire(&store).await;
            }
        });
        Mutex::new(Open::reserved(connection, permit, Expiry(Some(expiry.abort_handle()))))
    });
    Ok(Some(open))
}
