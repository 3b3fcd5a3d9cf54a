//! The conformance suite on a real server and on an emulator.

mod bucket;

use std::time::Duration;

use bucket::{CEPH, MOTO, Server};
use http::Method;
use storage_conformance::{Namespace, Target};
use storage_core::{Bytes, Capabilities, Key, Result};
use storage_s3::ObjectStoreBackend;
use tokio::sync::OnceCell;

/// A server, and whether its buckets keep versions.
#[derive(Clone, Copy)]
struct On(Server, bool);

/// In Ceph all checks share a bucket, and each has a prefix of its own; in moto, which looks at a whole bucket for each listing,
/// each has a bucket too.
fn bucket_of(On(server, versions): On, ns: &Namespace) -> &str {
    match versions {
        _ if server != CEPH => ns.name(),
        true => "storage-tests-versions",
        false => "storage-tests",
    }
}

async fn open(on: On, ns: Namespace) -> Result<ObjectStoreBackend> {
    static MADE: [OnceCell<()>; 2] = [const { OnceCell::const_new() }; 2];
    let (bucket, On(server, versions)) = (bucket_of(on, &ns), on);
    match server {
        CEPH => {
            MADE[usize::from(versions)].get_or_try_init(|| server.make(bucket, versions)).await?;
        }
        _ => server.make(bucket, versions).await?,
    }
    let mut config = server.config(bucket);
    // The suite may put a proxy before the server.
    config.endpoint = Some(format!("http://{}", ns.http_address(&server.host())?));
    config.store.prefix = ns.name().into();
    config.http.timeout = Duration::from_secs(10);
    storage_s3::connect(config).await
}

/// Names that no key lies under, or that `object_store` cannot even express.
async fn plant(on: On, ns: Namespace) -> Result<()> {
    for name in ["theirs", "dir/theirs", "a//b", "/a", "dir/", "ends.", ".storage/keys/README"] {
        let path = format!("/{}/{}/{name}", bucket_of(on, &ns), ns.name());
        on.0.request(Method::PUT, &path, "theirs").await?;
    }
    Ok(())
}

/// Where a key of plain characters lies.
fn path(on: On, ns: &Namespace, key: &Key) -> String {
    format!("/{}/{}/{key}", bucket_of(on, ns), ns.name())
}

/// Puts an object there whose metadata cannot be read.
async fn damage(on: On, ns: Namespace, key: Key) -> Result<()> {
    let metadata = [("x-amz-meta-storage", "not base64!")];
    on.0.described(Method::PUT, &path(on, &ns, &key), &metadata, "damaged".into()).await.map(drop)
}

async fn store(on: On, ns: Namespace, key: Key, value: Bytes) -> Result<()> {
    on.0.request(Method::PUT, &path(on, &ns, &key), value).await.map(drop)
}

fn target(name: &str, on: On, kind: &str) -> Target {
    let On(server, versions) = on;
    let mut required = Capabilities::new().atomic().streaming().presign();
    if versions {
        required = required.versioning();
    }
    // Where Ceph keeps versions, it does not honour conditions.
    if !(versions && server == CEPH) {
        required = required.conditional();
    }
    Target::new(name, move |ns| open(on, ns))
        .needs_env(server.0)
        .runs_on(kind)
        .secret(server.secret())
        .foreign(move |ns| plant(on, ns))
        .damage(move |ns, key| damage(on, ns, key))
        .stored_by_others(move |ns, key, value| store(on, ns, key, value))
        .requires(required)
        // Thousands of requests take their time, in moto one after the other, in Ceph where other programs run, too.
        .patience(Duration::from_secs(300))
        .group("buckets")
}

storage_conformance::main!(
    // Why, docs/backends.md says under "Ceph's own ways", and behind them of moto.
    target("s3-ceph", On(CEPH, false), "server")
        .unsteady(["races/every_call_beside_every_other", "races/every_call_beside_every_other_on_threads"]),
    target("s3-ceph-versions", On(CEPH, true), "server"),
    // With versions: conditions and versions meet only here. What works without them, Ceph shows.
    target("s3-moto-versions", On(MOTO, true), "third-party emulator").unsteady(["model/random_calls"]),
);
