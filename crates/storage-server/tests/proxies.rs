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
use storage_core::{Body, Bytes, Metadata, PutOptions};
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

/// What has not changed comes without its bytes, and a range is cut out of what is kept, also of a value that came as a stream.
async fn is_asked_for_by_its_etag(open: &Running, port: u16) {
    let pieces = (0..120_u8).map(|n| Ok::<_, storage_core::Error>(Bytes::from(vec![n; 25_000])));
    open.storage.put("public/large", Body::stream(futures_util::stream::iter(pieces))).await.unwrap();
    let ask = |method: &str| ask(open, port, method, "/files/public%2Flarge");
    let cache = |answer: &reqwest::Response| answer.headers()["x-cache"].to_str().unwrap().to_owned();
    let first = ask("GET").send().await.unwrap();
    assert_eq!((cache(&first).as_str(), &first.headers()["content-length"]), ("MISS", &"3000000".parse().unwrap()));
    let (etag, value) = (first.headers()["etag"].clone(), first.bytes().await.unwrap());
    let part = ask("GET").header("range", "bytes=24999-25000").send().await.unwrap();
    assert_eq!((part.status().as_u16(), cache(&part).as_str()), (206, "HIT"));
    assert_eq!(
        (&part.headers()["etag"], part.headers()["content-range"].to_str().unwrap()),
        (&etag, "bytes 24999-25000/3000000")
    );
    assert_eq!(part.bytes().await.unwrap(), [0, 1][..]);
    let head = ask("HEAD").send().await.unwrap();
    assert_eq!((cache(&head).as_str(), &head.headers()["content-length"]), ("HIT", &"3000000".parse().unwrap()));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let again = ask("GET").send().await.unwrap();
    assert_eq!((cache(&again).as_str(), &again.headers()["etag"]), ("REVALIDATED", &etag));
    assert_eq!(again.bytes().await.unwrap(), value);
}

/// Varnish with nothing set but its backend: it keeps what does not say otherwise for 120 s, errors too, forgets nothing on `PUT` and `DELETE`,
/// drops `If-Match` on reads, and asks for gzip. So each answer must say that it is not to be kept.
#[tokio::test(flavor = "multi_thread")]
async fn behind_varnish_as_it_comes() {
    let open = start(open_config()).await;
    let (port, place) = (free(), tempfile::tempdir().unwrap());
    let vcl = format!(
        "vcl 4.1;\nbackend default {{ .host = \"127.0.0.1\"; .port = \"{0}\"; }}\n\
         sub vcl_backend_fetch {{ set bereq.http.Host = \"127.0.0.1:{0}\"; }}\n",
        open.address.port()
    );
    fs::write(place.path().join("storage.vcl"), vcl).unwrap();
    let mut varnish = Command::new("varnishd");
    varnish.arg("-F").arg("-a").arg(format!("127.0.0.1:{port}")).arg("-f").arg(place.path().join("storage.vcl"));
    varnish.arg("-n").arg(place.path()).args(["-s", "malloc,64m"]);
    let Some(_proxy) = spawn(varnish, place, &[port]).await else { return };
    let ask = |method: &str, path: &str| ask(&open, port, method, path).header("accept-encoding", "gzip");
    let get = async |path: &str| {
        let get = ask("GET", path).send().await.unwrap();
        (get.status().as_u16(), get.text().await.unwrap())
    };
    for round in 0..3 {
        // Absence, a refusal and a listing are looked at each time, and so are values.
        assert_eq!(get("/files/k").await.0, 404, "{round}");
        assert_eq!(get("/files").await.1, "{\"keys\":[]}", "{round}");
        assert!(get("/v1/list").await.1.starts_with("{\"end\":0}"), "{round}");
        for value in ["one", "two"] {
            let put = ask("PUT", "/files/k").body(value).send().await.unwrap();
            assert_eq!(put.status(), 200);
            assert_eq!(get("/files/k").await, (200, value.to_owned()), "{round}");
            assert!(get("/v1/entries/aw").await.1.contains("\"size\":3"));
        }
        assert_eq!(get("/files").await.1, "{\"keys\":[\"k\"]}", "{round}");
        assert_eq!(get("/files/a%2F%2Fb").await.0, 400);
        // Of the bytes that are stored, with the etag that they have.
        let whole = ask("GET", "/files/k").send().await.unwrap();
        assert!(
            whole.headers()["etag"].to_str().unwrap().starts_with('"')
                && !whole.headers().contains_key("content-encoding")
        );
        let part = ask("GET", "/files/k").header("range", "bytes=1-1").send().await.unwrap();
        assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "w"));
        let several = ask("GET", "/files/k").header("range", "bytes=0-0,2-2").send().await.unwrap();
        // It refuses several ranges itself; never is one of them taken for the whole.
        assert!(several.status() == 416 || several.text().await.unwrap() == "two");
        assert_eq!(ask("PUT", "/files/k").header("if-match", "\"no\"").body("x").send().await.unwrap().status(), 412);
        assert_eq!(ask("DELETE", "/files/k").send().await.unwrap().status(), 204);
    }
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
    is_asked_for_by_its_etag(&open, public).await;
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
