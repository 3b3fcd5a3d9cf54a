//! A transaction: a session on one connection, and its end.

use std::{fmt, sync::Arc};

use storage_core::{Result, Transaction, async_trait};
use tokio::sync::Mutex;

use crate::session::{Open, Session};

/// Sees the store as it was when it began, with its own writes. Its first write takes the only write lock there is, or fails
/// with `Conflict` if anybody has written since; so transactions that write run one after the other.
pub(crate) struct SqlTransaction {
    pub(crate) session: Session,
    /// The only owner: streams that came out of the transaction end with it.
    _open: Arc<Mutex<Open>>,
}

impl SqlTransaction {
    pub(crate) fn new(session: Session, open: Arc<Mutex<Open>>) -> Self {
        Self { session, _open: open }
    }
}

impl fmt::Debug for SqlTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlTransaction").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transaction for SqlTransaction {
    async fn commit(&self) -> Result<()> {
        self.session.end(true).await
    }

    async fn rollback(&self) -> Result<()> {
        self.session.end(false).await
    }
}
