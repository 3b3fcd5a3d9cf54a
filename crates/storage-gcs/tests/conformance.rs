//! The conformance suite on an emulator, by a translator of ours.

mod bucket;

use std::time::Duration;

use bucket::{FAKE, config, host, make, plant, put, secret};
use storage_conformance::{Namespace, Target};
use storage_core::{Bytes, Capabilities, Key, Result};
use storage_gcs::ObjectStoreBackend;

/// Each check has a bucket of its own, since the emulator looks at a whole bucket for each request.
async fn open(ns: Namespace) -> Result<ObjectStoreBackend> {
    make(ns.name()).await?;
    // The suite may put a proxy before the translator.
    let mut config = config(ns.name(), &ns.http_address(&host()?)?);
    config.store.prefix = ns.name().into();
    config.http.timeout = Duration::from_secs(10);
    storage_gcs::connect(config).await
}

/// Names that no key lies under, or that `object_store` cannot even express.
async fn others(ns: Namespace) -> Result<()> {
    for name in ["theirs", "dir/theirs", "a//b", "/a", "dir/", "ends.", ".storage/keys/README"] {
        plant(&format!("/{0}/{0}/{name}", ns.name())).await?;
    }
    Ok(())
}

/// Where a key of plain characters lies.
fn path(ns: &Namespace, key: &Key) -> String {
    format!("/{0}/{0}/{key}", ns.name())
}

/// Puts an object there whose metadata cannot be read.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    put(&path(&ns, &key), &[("x-goog-meta-storage", "not base64!")], "damaged".into()).await
}

async fn store(ns: Namespace, key: Key, value: Bytes) -> Result<()> {
    put(&path(&ns, &key), &[], value).await
}

storage_conformance::main!(
    Target::new("gcs", open)
        .needs_env(FAKE)
        .runs_on("third-party emulator + our translator")
        .secret(secret())
        .foreign(others)
        .damage(damage)
        .stored_by_others(store)
        .patience(Duration::from_secs(300))
        .requires(Capabilities::new().atomic().streaming().conditional().version_etags()),
);
