//! What the tests have in common: servers over stores of a namespace, and a foreign one.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, LazyLock, Mutex},
};

use storage_core::{Storage, StorageBackend};
use storage_server::{Config, Server};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

/// What clients of the tests send.
pub(crate) const TOKEN: &str = "a-secret-of-the-tests-4711";

/// Servers outlive the runtime of the check that starts them, as those of other people do.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// A file with a token that may do everything, and one that may read.
fn tokens() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let text = format!(
        "[[token]]\nname = \"tests\"\nsecret = \"{TOKEN}\"\nscopes = [\"read\", \"write\", \"clear\"]\n\
         [[token]]\nname = \"reader\"\nsecret = \"reader-{TOKEN}\"\nscopes = [\"read\"]\n"
    );
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A server that ends with this.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Serves a store on a port of its own, or the one given.
    pub(crate) async fn start(storage: Storage, port: u16) -> Self {
        Self::start_with(storage, port, |server| server).await
    }

    /// The same with something more.
    pub(crate) async fn start_with(
        storage: Storage,
        port: u16,
        more: impl FnOnce(Server) -> Server + Send + 'static,
    ) -> Self {
        let (mut config, tokens) = (Config::default(), tokens());
        config.tokens = Some(tokens.path().to_owned());
        // The server keeps what it has read, so that nothing is left where a check kills its process.
        Self::run(storage, port, config, more, || drop(tokens)).await
    }

    /// Serves a store to every program on this machine.
    pub(crate) async fn start_open(storage: Storage) -> Self {
        let mut config = Config::default();
        config.allow_clear = true;
        Self::run(storage, 0, config, |server| server, || ()).await
    }

    async fn run(
        storage: Storage,
        port: u16,
        config: Config,
        more: impl FnOnce(Server) -> Server + Send + 'static,
        started: impl FnOnce(),
    ) -> Self {
        let bound = RUNTIME.spawn(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            more(Server::new(storage, config).unwrap()).on(listener).unwrap()
        });
        let bound = bound.await.unwrap();
        started();
        let address = bound.address().unwrap();
        let (end, told) = tokio::sync::oneshot::channel();
        let ended = RUNTIME.spawn(bound.run(async {
            // Dropping the sender ends it, too.
            let _ = told.await;
        }));
        Self { address, end: Some(end), ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it in good order.
    pub(crate) async fn stop(mut self) {
        drop(self.end.take());
        self.ended.await.unwrap();
    }
}

static SERVERS: LazyLock<tokio::sync::Mutex<HashMap<String, Running>>> = LazyLock::new(Default::default);

/// The server over the store of a namespace, begun with the first call.
pub(crate) async fn serve<F>(name: &str, open: impl FnOnce() -> F) -> String
where
    F: Future<Output = storage_core::Result<Arc<dyn StorageBackend>>> + Send + 'static,
{
    let mut servers = SERVERS.lock().await;
    if let Some(server) = servers.get(name) {
        return server.address.to_string();
    }
    let store = RUNTIME.spawn(open()).await.unwrap().unwrap();
    let server = Running::start(Storage::from_arc(store), 0).await;
    let address = server.address.to_string();
    servers.insert(name.to_owned(), server);
    address
}

/// Ends the server of a namespace, if there is one.
pub(crate) async fn end(name: &str) {
    drop(SERVERS.lock().await.remove(name));
}

/// A server of somebody else, which ends with this process.
pub(crate) struct Foreign {
    child: Child,
    _input: Option<ChildStdin>,
    pub(crate) port: u16,
}

impl Foreign {
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign.py");
        let python = env::var_os("STORAGE_TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let mut command = Command::new(python);
        let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { _input: child.stdin.take(), port: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

static FOREIGN: LazyLock<Mutex<HashMap<String, Foreign>>> = LazyLock::new(Mutex::default);

/// The foreign server of a namespace, begun with the first call.
pub(crate) fn foreign(name: &str) -> String {
    let mut servers = FOREIGN.lock().unwrap();
    let server = servers.entry(name.to_owned()).or_insert_with(Foreign::start);
    format!("127.0.0.1:{}", server.port)
}

/// Ends the foreign server of a namespace, if there is one.
pub(crate) fn end_foreign(name: &str) {
    FOREIGN.lock().unwrap().remove(name);
}
