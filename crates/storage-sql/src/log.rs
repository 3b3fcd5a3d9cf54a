//! The write-ahead log of a file, which grows as long as anybody reads what was there before. It is cut when it has become long
//! and nobody does any more.

use std::time::Duration;

use storage_core::Result;
use tokio::time::sleep;

use crate::session::{Session, permit};

/// How often cutting is tried in a row, and how long each reader has in between to end.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

impl Session {
    /// Cuts the log in the background if it is long; `anew` if a transaction has ended, behind which it could only grow.
    pub(crate) fn tend_log(&self, anew: bool) {
        if self.store.database.is_long(anew) {
            let session = self.clone();
            self.detach(async move {
                if let Err(e) = session.cut_log().await {
                    tracing::debug!(error = %e, "the log of the database stays long for now");
                }
            });
        }
    }

    async fn cut_log(&self) -> Result<()> {
        let store = &*self.store;
        let Some([copy, at_once, cut, patiently]) = store.dialect.cut_log(store.busy_timeout) else {
            return Ok(());
        };
        let mut connection = store.database.acquire().await?;
        for _ in 0..ATTEMPTS {
            // Nearly all of the work, for which no writer waits.
            connection.fetch(copy.clone(), vec![]).await?;
            let permit = permit(store, store.busy_timeout).await?;
            connection.run(at_once.clone()).await?;
            let done = connection.fetch(cut.clone(), vec![]).await;
            connection.run(patiently.clone()).await?;
            drop(permit);
            if let Some(Ok(0)) = done?.pop().map(|mut row| row.int()) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }
}
