//! The turn to write, where there is one writer at a time. Writers of one process queue in order. Among processes there is no
//! queue, and SQLite, told to wait, asks less and less often: a process that writes without a pause would take nearly every
//! turn. So a process asks by itself, and often, and one that has met another leaves it a moment before it asks again.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use storage_core::{ErrorKind, Result};
use tokio::time::{Instant, sleep_until};

use crate::{
    dialect::{Begin, Dialect, Tables},
    pool::Connection,
};

/// How long a pause between two attempts lasts at most: the first, and any. Half of it is the mean.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(4);
/// How long the file is left to others between two writes. They ask about once in this time.
const YIELDING: Duration = Duration::from_millis(2);
/// For how long a process that was met is thought to be there.
const LATELY: Duration = Duration::from_millis(100);
/// SQLite's first pause. What took less has not waited for anybody.
const NO_PAUSE: Duration = Duration::from_millis(1);

/// What one process knows of the others that write the same file.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// When this process last had its turn, and when another last had it that this one asked for.
    seen: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Turn {
    /// Begins a transaction. The turn to write is waited for until `busy_timeout` is over; then it fails as the database does.
    pub(crate) async fn begin(
        &self,
        connection: &mut dyn Connection,
        dialect: &dyn Dialect,
        tables: &Tables,
        begin: Begin,
        busy_timeout: Duration,
    ) -> Result<()> {
        let patient = dialect.begin(tables, begin);
        let Some(impatient) = dialect.begin_at_once(busy_timeout).filter(|_| begin != Begin::Snapshot) else {
            return connection.begin(patient).await;
        };
        let asked = Instant::now();
        let lately = |moment: Option<Instant>| moment.is_some_and(|moment| asked - moment < LATELY);
        let (had, met) = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if lately(had) && !lately(met) {
            // Whoever writes all the time alone is spared the longer statement.
            let begun = connection.begin(patient).await;
            self.note(asked.elapsed() >= NO_PAUSE);
            return begun;
        }
        let deadline = asked + busy_timeout;
        if lately(met) {
            sleep_until(deadline.min(asked + YIELDING)).await;
        }
        let (mut pause, mut waited) = (FIRST_PAUSE, false);
        loop {
            let begun = connection.begin(impatient.clone()).await;
            let now = Instant::now();
            match &begun {
                Err(e) if matches!(e.kind(), ErrorKind::Timeout | ErrorKind::Conflict) && now < deadline => {}
                _ => {
                    self.note(waited);
                    return begun;
                }
            }
            waited = true;
            sleep_until(deadline.min(now + pause.mul_f64(fastrand::f64()))).await;
            pause = LONGEST_PAUSE.min(pause.mul_f64(1.1));
        }
    }

    /// Remembers a turn, and whether another process was met.
    fn note(&self, met: bool) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (Some(now), if met { Some(now) } else { seen.1 });
    }
}

#[cfg(all(test, feature = "sqlite"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use tokio::{join, time::sleep};

    use super::*;
    use crate::{Config, Sql, open};

    #[tokio::test]
    async fn after_a_turn_that_was_waited_for_the_connection_waits_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::sqlite(directory.path().join("test.db"));
        config.busy_timeout = Duration::from_secs(30);
        Sql::connect(config.clone()).await.unwrap();
        let (database, _) = open::database(&config).unwrap();
        let dialect = database.dialect();
        let tables = Tables::new(&config.table, dialect);
        let (mut one, mut two) = (database.acquire().await.unwrap(), database.acquire().await.unwrap());
        one.begin("BEGIN IMMEDIATE".into()).await.unwrap();
        let first = async {
            sleep(Duration::from_millis(50)).await;
            one.rollback().await.unwrap();
        };
        let turn = Turn::default();
        let (begun, ()) = join!(turn.begin(&mut *two, dialect, &tables, Begin::Write, config.busy_timeout), first);
        begun.unwrap();
        two.rollback().await.unwrap();
        assert!(turn.seen.lock().unwrap().1.is_some());
        assert_eq!(two.fetch("PRAGMA busy_timeout".into(), vec![]).await.unwrap()[0].int().unwrap(), 30_000);
    }
}
