//! Behind nginx and Varnish, as `deploy` sets them up: nothing private is shared, what is public is kept and asked for by its etag, and
//! values, ranges, conditions and metadata come through as they are. Not run where the programs are not installed.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::{Method, RequestBuilder};
use storage_core::{Metadata, PutOptions};
use storage_server::{CacheRule, Config};
use support::{Running, TokenFile, start};

const TOKENS: &str = "
[[token]]
name = 'a'
secret = 'a-0123456789abcdef'
scopes = ['read', 'write']
[[token]]
name = 'b'
secret = 'b-0123456789abcdef'
scopes = ['read']
prefix = 'b/'
";

struct Proxy {
    child: Child,
    _place: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked to, and only then.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn deploy(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)).unwrap()
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn spawn(mut command: Command, place: tempfile::TempDir, ports: &[u16]) -> Option<Proxy> {
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        let name = command.get_program().to_string_lossy();
        assert!(std::env::var_os("STORAGE_TEST_REQUIRE").is_none(), "{name} is not installed");
        eprintln!("not run: {name} is not installed");
        return None;
    };
    let proxy = Proxy { child, _place: place };
    for port in ports {
        let mut left = 200;
        while tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
            left -= 1;
            assert!(left > 0, "the proxy does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Some(proxy)
}

fn open_config() -> Config {
    let mut config = Config::default();
    config.cache = vec![CacheRule { prefix: "public/".into(), control: "max-age=1".into() }];
    config
}

fn ask(server: &Running, port: u16, method: &str, path: &str) -> RequestBuilder {
    server.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("http://127.0.0.1:{port}{path}"))
}

/// What goes through must be what is stored, and nobody sees what is another's.
async fn is_passed_on(server: &Running, port: u16) {
    let a = |method: &str, path: &str| ask(server, port, method, path).bearer_auth("a-0123456789abcdef");
    let value = vec![7_u8; 3 << 20];
    let put = a("PUT", "/files/secret%2Flarge").body(value.clone()).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let get = a("GET", "/files/secret%2Flarge").send().await.unwrap();
    let etag = get.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"'), "{etag}");
    assert_eq!(get.headers()["content-length"], (3 << 20).to_string().as_str());
    assert_eq!(get.bytes().await.unwrap(), value);
    // Again: nothing was kept for others.
    for (who, status) in [("b-0123456789abcdef", 403), ("forged-0123456789abcdef", 401)] {
        let other = ask(server, port, "GET", "/files/secret%2Flarge").bearer_auth(who).send().await.unwrap();
        assert_eq!(other.status(), status);
    }
    assert_eq!(ask(server, port, "GET", "/files/secret%2Flarge").send().await.unwrap().status(), 401);
    let part = a("GET", "/files/secret%2Flarge").header("range", "bytes=10-19").send().await.unwrap();
    assert_eq!(
        (part.status().as_u16(), &part.headers()["content-range"]),
        (206, &"bytes 10-19/3145728".parse().unwrap())
    );
    let stale = a("GET", "/files/secret%2Flarge").header("if-match", "\"no\"").send().await.unwrap();
    assert_eq!(stale.status(), 412);
    let same = a("GET", "/files/secret%2Flarge").header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(same.status(), 304);
    let create = a("PUT", "/files/secret%2Flarge").header("if-none-match", "*").body("v").send().await.unwrap();
    assert_eq!(create.status(), 412);
    // What was written is seen at once.
    a("PUT", "/files/secret%2Flarge").body("small").send().await.unwrap();
    assert_eq!(a("GET", "/files/secret%2Flarge").send().await.unwrap().text().await.unwrap(), "small");
    assert_eq!(a("DELETE", "/files/secret%2Flarge").send().await.unwrap().status(), 204);
    assert_eq!(a("GET", "/files/secret%2Flarge").send().await.unwrap().status(), 404);
    // Metadata as large as it may be, which travels in a header.
    let metadata = Metadata::new().field("large", "x".repeat(65_000));
    server.storage.put_with("large", "v", PutOptions::new().metadata(metadata)).await.unwrap();
    let get = a("GET", "/files/large").send().await.unwrap();
    assert_eq!(get.status(), 200);
    let header = get.headers()["storage-metadata"].clone();
    let put = a("PUT", "/files/copy").header("storage-metadata", header).body("v").send().await.unwrap();
    assert_eq!(put.status(), 200);
    assert_eq!(
        server.storage.stat("copy").await.unwrap().unwrap().metadata,
        server.storage.stat("large").await.unwrap().unwrap().metadata
    );
    let lines = a("GET", "/v1/list").send().await.unwrap().text().await.unwrap();
    assert!(lines.ends_with("{\"end\":2}\n"), "{lines}");
}

/// What is public is kept for as long as was said, and then asked for by its etag.
async fn is_kept(open: &Running, port: u16, how: fn(&str) -> bool) {
    open.storage.put("public/k", "0123456789").await.unwrap();
    let get = async || {
        let get = ask(open, port, "GET", "/files/public%2Fk").send().await.unwrap();
        assert_eq!(get.status(), 200);
        let cache = get.headers().get("x-cache").map_or(String::new(), |cache| cache.to_str().unwrap().to_owned());
        let etag = get.headers()["etag"].to_str().unwrap().to_owned();
        assert!(etag.starts_with('"'), "{etag}");
        (cache, etag, get.text().await.unwrap())
    };
    let (_, first, _) = get().await;
    let (cache, _, _) = get().await;
    assert!(how(&cache), "expected an answer from the cache, saw {cache}");
    let part = ask(open, port, "GET", "/files/public%2Fk").header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "234"));
    open.storage.put("public/k", "new").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let (_, etag, value) = get().await;
    assert!(etag != first && value == "new", "{etag} {value}");
    open.storage.delete("public/k").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    // Absence is never kept.
    assert_eq!(ask(open, port, "GET", "/files/public%2Fk").send().await.unwrap().status(), 404);
    open.storage.put("public/k", "again").await.unwrap();
    assert_eq!(get().await.2, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx() {
    let tokens = TokenFile::new(TOKENS);
    let (server, open) = (start(tokens.config()).await, start(open_config()).await);
    let (all, public) = (free(), free());
    let place = tempfile::tempdir().unwrap();
    let mut config = deploy("nginx.conf");
    for (from, to) in [(8080, server.address.port()), (8081, open.address.port()), (8000, all), (8001, public)] {
        config = config.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
    }
    // Its usual log is root's.
    config = config.replace("http {\n", "http {\n    access_log off;\n");
    fs::write(place.path().join("nginx.conf"), config).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(place.path()).args([
        "-c",
        "nginx.conf",
        "-e",
        "stderr",
        "-g",
        "daemon off; pid nginx.pid; user root;",
    ]);
    let Some(_proxy) = spawn(nginx, place, &[all, public]).await else { return };
    is_passed_on(&server, all).await;
    is_kept(&open, public, |cache| cache == "HIT").await;
    // Nothing but reads of what is public comes through.
    for (method, path) in
        [("PUT", "/files/public%2Fk"), ("DELETE", "/files/public%2Fk"), ("GET", "/files"), ("GET", "/v1")]
    {
        let status = ask(&open, public, method, path).send().await.unwrap().status().as_u16();
        assert!(status == 403 || status == 404, "{method} {path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_varnish() {
    let tokens = TokenFile::new(TOKENS);
    let (server, open) = (start(tokens.config()).await, start(open_config()).await);
    for (server, passes) in [(&server, true), (&open, false)] {
        let (port, place) = (free(), tempfile::tempdir().unwrap());
        let mut vcl = deploy("varnish.vcl").replace("\"8080\"", &format!("\"{}\"", server.address.port()));
        if !passes {
            // By this name the server without tokens lets itself be asked.
            let host =
                format!("sub vcl_backend_fetch {{\n set bereq.http.Host = \"127.0.0.1:{}\";", server.address.port());
            vcl = vcl.replace("sub vcl_backend_fetch {", &host);
        }
        fs::write(place.path().join("storage.vcl"), vcl).unwrap();
        let mut varnish = Command::new("varnishd");
        varnish.arg("-F").arg("-a").arg(format!("127.0.0.1:{port}")).arg("-f").arg(place.path().join("storage.vcl"));
        varnish.arg("-n").arg(place.path()).args(["-s", "malloc,64m"]);
        for size in ["http_req_hdr_len=128k", "http_req_size=256k", "http_resp_hdr_len=128k", "http_resp_size=256k"] {
            varnish.args(["-p", size]);
        }
        varnish.args(["-p", "workspace_client=512k", "-p", "workspace_backend=512k"]);
        let Some(_proxy) = spawn(varnish, place, &[port]).await else { return };
        match passes {
            true => is_passed_on(server, port).await,
            false => is_kept(server, port, |hits| hits != "0").await,
        }
    }
}
