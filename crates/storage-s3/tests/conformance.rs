//! The conformance suite on a real server and on an emulator.

mod bucket;

use std::time::Duration;

use bucket::{CEPH, MOTO, Server};
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Result};
use storage_s3::ObjectStoreBackend;
use tokio::sync::OnceCell;

const ALL: Capabilities = Capabilities::new().atomic().streaming().conditional();

/// A prefix of its own in a bucket that all checks share; in moto, which looks at a whole bucket for each listing, a bucket.
async fn open(server: Server, versions: bool, ns: Namespace) -> Result<ObjectStoreBackend> {
    static MADE: [OnceCell<()>; 2] = [const { OnceCell::const_new() }; 2];
    let shared = if versions { "storage-tests-versions" } else { "storage-tests" };
    let bucket = match server {
        CEPH => shared,
        _ => ns.name(),
    };
    match server {
        CEPH => MADE[usize::from(versions)].get_or_try_init(|| server.make(bucket, versions)).await.map(drop)?,
        _ => server.make(bucket, versions).await?,
    }
    let mut config = server.config(bucket);
    // The suite may put a proxy before the server.
    config.endpoint = Some(format!("http://{}", ns.address(&server.host())?));
    config.store.prefix = ns.name().into();
    config.http.timeout = Duration::from_secs(10);
    storage_s3::connect(config).await
}

fn target(name: &str, server: Server, versions: bool, kind: &str) -> Target {
    let capabilities = if versions { ALL.versioning() } else { ALL };
    Target::new(name, move |ns| open(server, versions, ns))
        .needs_env(server.0)
        .runs_on(kind)
        .secret(server.secret())
        .requires(capabilities)
}

storage_conformance::main!(
    target("s3-ceph", CEPH, false, "server"),
    // Each request costs it some milliseconds, one after the other.
    target("s3-moto", MOTO, false, "third-party emulator").patience(Duration::from_secs(300)),
);
