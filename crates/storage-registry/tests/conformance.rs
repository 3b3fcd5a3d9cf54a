//! The whole suite over the whole stack around each kind of backend, from a configuration as an operator writes it.

#[path = "../../storage-s3/tests/bucket/mod.rs"]
mod bucket;

use std::{env, fs, sync::Arc, time::Duration};

use bucket::CEPH;
use http::Method;
use storage_config::{BackendFactory, ConnectionConfig, Secret, StorageContext};
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Error, ErrorKind, Result, StorageBackend, async_trait};
use storage_registry::{Registry, StorageConfig};
use tokio::sync::OnceCell;

const LAYERS: &str = r#"
layers = [
    "trace",
    "metrics",
    "cache",
    "retry",
    "timeout",
    "limit",
    "compress",
    { name = "encrypt", keys.test = "file:DIR/tests/test.key" },
]
"#;
/// What `test.key` holds. Not a key for anything else.
const KEY: &str = "0123456789abcdefghijklmnopqrstuv";

/// Opens what the registry's own factories open, so that the suite can let it fail, below all layers.
struct Below(Namespace);

#[async_trait]
impl BackendFactory for Below {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory", "fs", "sqlite", "postgres", "object-store+file", "s3"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let store = Registry::new().connect(config).await?.backend().clone();
        Ok(Arc::new(self.0.below(store)))
    }
}

async fn stack(ns: Namespace, store: &str) -> Result<Arc<dyn StorageBackend>> {
    let config = format!("{store}{}", LAYERS.replace("DIR", env!("CARGO_MANIFEST_DIR")));
    let registry = Registry::new().register(Below(ns));
    Ok(registry.build(&StorageConfig::from_toml(&config)?).await?.backend().clone())
}

/// A store in the namespace's directory.
async fn local(ns: Namespace, backend: &str, file: &str) -> Result<Arc<dyn StorageBackend>> {
    let place = ns.dir().join(file);
    stack(ns, &format!("backend = {backend:?}\nconnection = {place:?}")).await
}

/// A table of its own in the database that the variable names.
async fn server(ns: Namespace) -> Result<Arc<dyn StorageBackend>> {
    let uri = env::var("STORAGE_TEST_POSTGRES").unwrap_or_default();
    // The suite may put a proxy before the server.
    let (before, server, behind) = parts(&uri);
    let (uri, table) = (format!("{before}{}{behind}", ns.address(server)?), ns.name().to_owned());
    // Many checks run at once, and a server has only so many connections.
    let options = format!("options = {{ table = {table:?}, max_connections = 5, timeout = 10 }}");
    stack(ns, &format!("backend = {uri:?}\n{options}")).await
}

/// Where the checks on Ceph are.
const BUCKET: &str = "storage-tests-stack";

/// A part of its own in a bucket of Ceph's that all checks share.
async fn ceph(ns: Namespace) -> Result<Arc<dyn StorageBackend>> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_try_init(|| CEPH.make(BUCKET, false)).await?;
    let config = CEPH.config("");
    let [id, secret] = [&config.access_key_id, &config.secret_access_key].map(|part| part.as_ref().map(Secret::expose));
    // The suite may put a proxy before the server. Where that is silent, all tries of the layer `retry` together must end while
    // the suite waits.
    let endpoint = format!("http://{}", ns.http_address(&CEPH.host())?);
    let options = format!(
        "options = {{ endpoint = {endpoint:?}, access_key_id = {:?}, secret_access_key = {:?}, timeout = 5 }}",
        id.unwrap_or_default(),
        secret.unwrap_or_default()
    );
    stack(ns.clone(), &format!("backend = \"s3://{BUCKET}/{}\"\n{options}", ns.name())).await
}

/// What stands before the server's `host:port`, that, and what stands behind it.
fn parts(uri: &str) -> (&str, &str, &str) {
    let start = uri.rfind('@').map_or(0, |at| at + 1);
    let end = uri[start..].find('/').map_or(uri.len(), |end| start + end);
    (&uri[..start], &uri[start..end], &uri[end..])
}

/// The password of the server.
fn password() -> String {
    let uri = env::var("STORAGE_TEST_POSTGRES").unwrap_or_default();
    let user = parts(&uri).0.trim_end_matches('@').rsplit_once(':');
    user.map_or_else(String::new, |(_, password)| password.to_owned())
}

/// What each of these must be able to do; some can do more.
const ALL: Capabilities = Capabilities::new().atomic().compression().encryption();
/// The same where an etag is no hash of the content.
const UNIQUE: Capabilities = ALL.version_etags();

storage_conformance::main!(
    Target::new("stack-memory", |ns: Namespace| stack(ns, "backend = \"memory\""))
        .volatile()
        .secret(KEY)
        .group("stacks")
        .requires(UNIQUE.conditional().conditional_delete().transactions().versioning()),
    Target::new("stack-fs", |ns: Namespace| local(ns, "fs", ""))
        .secret(KEY)
        .group("stacks")
        .slow()
        .requires(UNIQUE.conditional().conditional_delete().streaming())
        .foreign(|ns: Namespace| async move {
            let failed = |e| Error::new(ErrorKind::Other, "the foreign file cannot be made").with_source(e);
            fs::write(ns.dir().join("plain file"), "neither encrypted nor compressed").map_err(failed)
        }),
    Target::new("stack-sqlite", |ns: Namespace| local(ns, "sqlite", "test.db"))
        .secret(KEY)
        .group("stacks")
        .slow()
        .requires(UNIQUE.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-postgres", server)
        .needs_env("STORAGE_TEST_POSTGRES")
        .runs_on("server")
        .group("stacks")
        .slow()
        .secret(KEY)
        .secret(password())
        .requires(UNIQUE.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-object-store", |ns: Namespace| local(ns, "object-store+file", ""))
        .secret(KEY)
        .group("stacks")
        .slow()
        .requires(UNIQUE.streaming()),
    Target::new("stack-s3", ceph)
        .needs_env(CEPH.0)
        .runs_on("server")
        .group("stacks")
        .slow()
        .secret(KEY)
        .secret(CEPH.secret())
        .requires(ALL.conditional().streaming())
        .foreign(|ns: Namespace| async move {
            let path = format!("/{BUCKET}/{}/theirs", ns.name());
            CEPH.request(Method::PUT, &path, "neither encrypted nor compressed").await.map(drop)
        })
        // As for the same store without layers: thousands of requests take their time.
        .patience(Duration::from_secs(300)),
);
