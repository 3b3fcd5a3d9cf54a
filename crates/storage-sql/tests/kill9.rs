//! A process that writes is killed at random moments: see `storage_conformance::crash`.

use std::{fs, process::ExitCode};

use storage_conformance::crash::Crash;
use storage_core::{Error, ErrorKind};
use storage_sql::{Config, Sql};

fn main() -> ExitCode {
    Crash::new("sqlite", |place| async move {
        fs::create_dir_all(&place)
            .map_err(|e| Error::new(ErrorKind::Other, "the place cannot be made").with_source(e))?;
        Sql::connect(Config::sqlite(place.join("database"))).await
    })
    .main()
}
