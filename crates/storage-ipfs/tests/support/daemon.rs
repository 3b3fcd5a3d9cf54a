//! A node of a test's own, that can be killed, collects, and is asked behind the store's back.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    env,
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The program, where `cargo xtask services` puts it.
pub(crate) fn program() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))?.join("storage-services");
    let folders = std::fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    let mut programs =
        folders.filter(|folder| folder.to_string_lossy().contains("/kubo-")).map(|folder| folder.join("ipfs"));
    programs.find(|program| program.exists())
}

/// Whether the test cannot run for want of the program.
pub(crate) fn is_missing() -> bool {
    let missing = program().is_none();
    assert!(
        !missing || env::var_os("STORAGE_TEST_REQUIRE").is_none(),
        "there is no Kubo; `cargo xtask services install kubo` builds it"
    );
    missing
}

pub(crate) struct Daemon {
    repo: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Daemon {
    /// A new node below this directory.
    pub(crate) async fn start(dir: &Path) -> Self {
        let free = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [port, gateway] = free.map(|listener| listener.local_addr().unwrap().port());
        let mut daemon = Self { repo: dir.join("repo"), port, process: None };
        daemon.run(&["init", "--profile", "test,autoconf-off,announce-off", "--empty-repo"]);
        let addresses = format!(
            r#"{{"API": "/ip4/127.0.0.1/tcp/{port}", "Gateway": "/ip4/127.0.0.1/tcp/{gateway}", "Swarm": []}}"#
        );
        for (name, value) in [
            ("Addresses", addresses.as_str()),
            ("Routing.Type", "\"none\""),
            ("Gateway.NoFetch", "true"),
            ("Version.SwarmCheckEnabled", "false"),
            ("Plugins.Plugins", r#"{"telemetry": {"Disabled": true}, "nopfs": {"Disabled": true}}"#),
        ] {
            daemon.run(&["config", "--json", name, value]);
        }
        daemon.restart().await;
        daemon
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program().unwrap());
        command.env("IPFS_PATH", &self.repo).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn set(&self, name: &str, json: &str) {
        self.run(&["config", "--json", name, json]);
    }

    /// Runs it again at the same port.
    pub(crate) async fn restart(&mut self) {
        let log = File::create(self.repo.with_extension("log")).unwrap();
        let mut daemon = self.command();
        daemon.args(["daemon", "--offline", "--enable-gc=false"]).stdout(Stdio::null()).stderr(log);
        self.process = Some(daemon.spawn().unwrap());
        let begun = Instant::now();
        while self.post("version", "").await.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the node does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn gateway(&self) -> String {
        let shown: Value = serde_json::from_str(&self.post("config/show", "").await.unwrap()).unwrap();
        let gateway = shown["Addresses"]["Gateway"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        format!("http://127.0.0.1:{gateway}")
    }

    /// The answer to a command, whatever its status; `None` without one.
    pub(crate) async fn post(&self, command: &str, query: &str) -> Option<String> {
        let url = format!("{}/api/v0/{command}?{query}", self.address());
        let response = client().post(url).timeout(Duration::from_secs(60)).send().await.ok()?;
        response.text().await.ok()
    }

    /// Adds content as somebody else, and pins it under a name.
    pub(crate) async fn add(&self, value: &str, query: &str) -> String {
        let body =
            format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{value}\r\n--b--\r\n");
        let url = format!("{}/api/v0/add?{query}", self.address());
        let request = client().post(url).header("content-type", "multipart/form-data; boundary=b").body(body);
        let text = request.send().await.unwrap().text().await.unwrap();
        let last = text.lines().last().unwrap_or_else(|| panic!("add?{query}: {text}"));
        serde_json::from_str::<Value>(last).unwrap_or_else(|_| panic!("add?{query}: {text}"))["Hash"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The names of recursive pins, by content identifier.
    pub(crate) async fn pins(&self) -> std::collections::BTreeMap<String, String> {
        let text = self.post("pin/ls", "type=recursive&names=true&stream=true").await.unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        let pins = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        pins.map(|pin| (text(&pin["Cid"]), text(&pin["Name"]))).collect()
    }

    /// Those of stores. A node has one of its own, too.
    pub(crate) async fn ours(&self) -> std::collections::BTreeMap<String, String> {
        let mut pins = self.pins().await;
        pins.retain(|_, name| name.starts_with("storage-ipfs:"));
        pins
    }

    /// Whether a store's pin keeps this content: one of a directory with nothing else.
    pub(crate) async fn keeps(&self, cid: &str) -> bool {
        for (pin, name) in self.ours().await {
            if name.ends_with(cid) || pin == cid {
                return true;
            }
            let listed = self.post("ls", &format!("arg={pin}&resolve-type=false&size=false")).await.unwrap();
            if listed.contains(cid) {
                return true;
            }
        }
        false
    }

    pub(crate) async fn collect(&self) {
        self.post("repo/gc", "").await.unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn client() -> reqwest::Client {
    static CLIENT: std::sync::OnceLock<reqwest::Client> = std::sync::OnceLock::new();
    let make = || {
        let roots = rustls::RootCertStore::empty();
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each call may be of another runtime.
        reqwest::Client::builder().tls_backend_preconfigured(tls).pool_max_idle_per_host(0).build().unwrap()
    };
    CLIENT.get_or_init(make).clone()
}
