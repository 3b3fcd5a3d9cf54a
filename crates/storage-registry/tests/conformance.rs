//! The whole suite over the whole stack around each kind of backend, from a configuration as an operator writes it.

use std::{env, fs, sync::Arc};

use storage_conformance::{Namespace, Target};
use storage_core::{
    BackendFactory, Capabilities, ConnectionConfig, Error, ErrorKind, Result, StorageBackend, StorageContext,
    async_trait,
};
use storage_registry::{Registry, StorageConfig};

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
        &["memory", "fs", "sqlite", "postgres", "object-store+file"]
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
const ALL: Capabilities = Capabilities::new().atomic().unique_etags().compression().encryption();

storage_conformance::main!(
    Target::new("stack-memory", |ns: Namespace| stack(ns, "backend = \"memory\""))
        .volatile()
        .secret(KEY)
        .requires(ALL.conditional().conditional_delete().transactions().versioning()),
    Target::new("stack-fs", |ns: Namespace| local(ns, "fs", ""))
        .secret(KEY)
        .requires(ALL.conditional().conditional_delete().streaming())
        .foreign(|ns: Namespace| async move {
            let failed = |e| Error::new(ErrorKind::Other, "the foreign file cannot be made").with_source(e);
            fs::write(ns.dir().join("plain file"), "neither encrypted nor compressed").map_err(failed)
        }),
    Target::new("stack-sqlite", |ns: Namespace| local(ns, "sqlite", "test.db"))
        .secret(KEY)
        .requires(ALL.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-postgres", server)
        .needs_env("STORAGE_TEST_POSTGRES")
        .runs_on("server")
        .secret(KEY)
        .secret(password())
        .requires(ALL.conditional().conditional_delete().transactions().streaming()),
    Target::new("stack-object-store", |ns: Namespace| local(ns, "object-store+file", ""))
        .secret(KEY)
        .requires(ALL.streaming()),
);
