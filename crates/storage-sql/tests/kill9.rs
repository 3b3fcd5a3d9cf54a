//! A process that writes is killed at random moments: see `storage_conformance::crash`.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/staged.rs"]
mod staged;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use storage_conformance::crash::Crash;
use storage_core::{Error, ErrorKind};
use storage_sql::{Config, Sql};

fn main() -> ExitCode {
    Crash::new("sqlite", |place| async move {
        fs::create_dir_all(&place)
            .map_err(|e| Error::new(ErrorKind::Other, "the place cannot be made").with_source(e))?;
        let mut config = Config::sqlite(place.join("database"));
        // Whoever connects here does so when all that staged are dead.
        config.sweep_after = Duration::ZERO;
        Sql::connect(config).await
    })
    .leftovers(|place: &Path| staged::count(&place.join("database")))
    .main()
}
