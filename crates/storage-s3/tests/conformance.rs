//! The conformance suite on a real server and on an emulator.

mod bucket;

use std::time::Duration;

use bucket::{CEPH, MOTO, Server};
use http::Method;
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Result};
use storage_s3::ObjectStoreBackend;
use tokio::sync::OnceCell;

/// In Ceph all checks share a bucket, and each has a prefix of its own; in moto, which looks at a whole bucket for each listing,
/// each has a bucket too.
fn bucket_of(server: Server, ns: &Namespace) -> &str {
    if server == CEPH { "storage-tests" } else { ns.name() }
}

async fn open(server: Server, ns: Namespace) -> Result<ObjectStoreBackend> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let bucket = bucket_of(server, &ns);
    match server {
        CEPH => MADE.get_or_try_init(|| server.make(bucket, false)).await.map(drop)?,
        _ => server.make(bucket, false).await?,
    }
    let mut config = server.config(bucket);
    // The suite may put a proxy before the server.
    config.endpoint = Some(format!("http://{}", ns.address(&server.host())?));
    config.store.prefix = ns.name().into();
    config.http.timeout = Duration::from_secs(10);
    storage_s3::connect(config).await
}

/// Names that no key lies under, or that `object_store` cannot even express.
async fn plant(server: Server, ns: Namespace) -> Result<()> {
    for name in ["theirs", "dir/theirs", "a//b", "/a", "dir/", "ends.", ".storage/keys/README"] {
        let path = format!("/{}/{}/{name}", bucket_of(server, &ns), ns.name());
        server.request(Method::PUT, &path, "theirs").await?;
    }
    Ok(())
}

fn target(name: &str, server: Server, kind: &str) -> Target {
    Target::new(name, move |ns| open(server, ns))
        .needs_env(server.0)
        .runs_on(kind)
        .secret(server.secret())
        .foreign(move |ns| plant(server, ns))
        .requires(Capabilities::new().atomic().streaming().conditional())
}

storage_conformance::main!(
    target("s3-ceph", CEPH, "server"),
    // Each request costs it some milliseconds, one after the other.
    target("s3-moto", MOTO, "third-party emulator").patience(Duration::from_secs(300)),
);
