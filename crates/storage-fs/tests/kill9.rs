//! A process that writes is killed at random moments: see `storage_conformance::crash`.

use std::{fs, path::Path, process::ExitCode};

use storage_conformance::crash::Crash;
use storage_fs::Fs;

fn main() -> ExitCode {
    Crash::new("fs", |place| async move { Fs::open(place).await }).leftovers(staged).main()
}

/// What is staged. A process that lives, or was killed, has one lock file beside that.
fn staged(root: &Path) -> usize {
    let staging = fs::read_dir(root.join(".storage/staging"));
    staging.map_or(0, |names| names.count().saturating_sub(1))
}
