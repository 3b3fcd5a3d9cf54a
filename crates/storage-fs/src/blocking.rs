//! Blocking work, away from the threads that drive futures.

use std::panic;

use storage_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;

/// Runs `work` on a thread that may block. It runs to its end even if the future is dropped.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let runtime = Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::Other, "the filesystem backend must be called from within a Tokio runtime").with_source(e)
    })?;
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            Err(e) => {
                Err(Error::new(ErrorKind::Unavailable, "the Tokio runtime is shutting down").ambiguous().with_source(e))
            }
        },
    }
}
