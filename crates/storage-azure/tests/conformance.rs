//! The conformance suite on Microsoft's emulator.

mod container;

use std::time::Duration;

use container::{AZURITE, connection_string, described, host, key, make, plant, request};
use http::Method;
use storage_azure::{Config, ObjectStoreBackend};
use storage_conformance::{Namespace, Target};
use storage_core::{Bytes, Capabilities, Key, Result};
use tokio::sync::OnceCell;

/// All checks share a container, and each has a prefix of its own.
const CONTAINER: &str = "storage-tests";

async fn open(ns: Namespace) -> Result<ObjectStoreBackend> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_try_init(|| make(CONTAINER)).await?;
    let mut config = Config::new(CONTAINER);
    // The suite may put a proxy before the emulator, to see how long a hang lasts. Without one, the emulator may take its time: it
    // serves one request at a time, and twenty batches of 256 deletes may wait for each other.
    let address = ns.http_address(&host())?;
    config.http.timeout = Duration::from_secs(if address == host() { 120 } else { 10 });
    config.connection_string = Some(connection_string(&address));
    config.store.prefix = ns.name().into();
    storage_azure::connect(config).await
}

/// Names that no key lies under, or that `object_store` cannot even express.
async fn others(ns: Namespace) -> Result<()> {
    for name in ["theirs", "dir/theirs", "a//b", "/a", "dir/", "ends.", "%F0%9F%98%80", ".storage/keys/README"] {
        plant(&format!("/{CONTAINER}/{}/{name}", ns.name())).await?;
    }
    Ok(())
}

/// Where a key of plain characters lies.
fn path(ns: &Namespace, key: &Key) -> String {
    format!("/{CONTAINER}/{}/{key}", ns.name())
}

/// Puts a blob there whose metadata cannot be read.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    let metadata = [("x-ms-meta-storage", "not base64!")];
    described(Method::PUT, &path(&ns, &key), &metadata, "damaged".into()).await.map(drop)
}

async fn store(ns: Namespace, key: Key, value: Bytes) -> Result<()> {
    request(Method::PUT, &path(&ns, &key), value).await.map(drop)
}

storage_conformance::main!(
    Target::new("azure", open)
        .needs_env(AZURITE)
        .runs_on("vendor emulator")
        .secret(key())
        .foreign(others)
        .damage(damage)
        .stored_by_others(store)
        // Each request costs it some milliseconds, one after the other, and it looks at all blobs of all containers for a listing.
        .patience(Duration::from_secs(300))
        .requires(Capabilities::new().atomic().streaming().conditional().version_etags()),
);
