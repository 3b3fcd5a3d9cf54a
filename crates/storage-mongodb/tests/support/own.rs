//! A server of a test's own, which it may stop, and where nobody else is.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Document, doc},
    options::ClientOptions,
};
use storage_config::ConnectionConfig;
use storage_core::Result;
use storage_mongodb::Config;
use tempfile::TempDir;

use crate::support;

/// A server of a test's own.
pub(crate) struct Server {
    child: Child,
    port: u16,
    place: TempDir,
}

impl Server {
    /// `None` where the program is not installed.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        if support::is_missing_server() {
            return None;
        }
        Some(Self::start_in(tempfile::tempdir().unwrap(), arguments).await)
    }

    pub(crate) async fn start_in(place: TempDir, arguments: &[&str]) -> Self {
        let program = support::program("secantusd-py").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--log-level", "ERROR", "--storage-path"]);
        let child = command.arg(place.path()).args(arguments).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, port, place }
    }

    pub(crate) fn config(&self, user: &str, options: &str) -> Result<Config> {
        Self::config_at(&format!("{user}{}", self.address()), options)
    }

    /// For a client that hears at once that the server is well again.
    pub(crate) fn prompt_config(&self) -> Result<Config> {
        Self::config_at(&support::telling_at_once(self.address()), "directConnection=true")
    }

    fn config_at(place: &str, options: &str) -> Result<Config> {
        let uri = format!("mongodb://{place}/storage?{options}");
        let mut config = Config::from_connection(&ConnectionConfig::new(uri))?;
        config.timeout = Duration::from_secs(15);
        Ok(config)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        let uri = format!("mongodb://{}/?directConnection=true", self.address());
        Client::with_options(ClientOptions::parse(uri).await.unwrap()).unwrap()
    }

    /// The next command of this name fails so.
    pub(crate) async fn fail(&self, command: &str, how: Document) {
        self.fail_often(command, how, 1).await;
    }

    /// The next so many commands of this name fail so.
    pub(crate) async fn fail_often(&self, command: &str, mut how: Document, times: i32) {
        how.insert("failCommands", vec![command]);
        let fail = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": how };
        self.client().await.database("admin").run_command(fail).await.unwrap();
    }

    /// The same place without the server.
    pub(crate) fn stop(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.place, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
