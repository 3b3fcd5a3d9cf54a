//! The client through nginx and Varnish, as `storage-server/deploy` sets them up and as they come, and over the WebDAV of nginx, which is a
//! server of somebody else.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{TryStreamExt, stream};
use storage_config::Secret;
use storage_core::{Body, Bytes, CopyOptions, DeleteOptions, ErrorKind, GetOptions, Metadata, PutOptions, Storage};
use storage_memory::Memory;
use storage_rest::{Api, Config, Rest};
use support::{Running, TOKEN};

struct Proxy {
    child: Child,
    place: tempfile::TempDir,
    port: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked to, and only then.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn deploy(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage-server/deploy").join(file)).unwrap()
}

async fn spawn(mut command: Command, place: tempfile::TempDir, port: u16) -> Option<Proxy> {
    let Ok(child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        let name = command.get_program().to_string_lossy();
        assert!(std::env::var_os("STORAGE_TEST_REQUIRE").is_none(), "{name} is not installed");
        eprintln!("not run: {name} is not installed");
        return None;
    };
    let proxy = Proxy { child, place, port };
    let mut left = 200;
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        left -= 1;
        assert!(left > 0, "the proxy does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(proxy)
}

async fn nginx(config: impl FnOnce(&Path, u16) -> String) -> Option<Proxy> {
    let (place, port) = (tempfile::tempdir().unwrap(), free());
    // Its usual log is root's.
    let config = config(place.path(), port).replace("http {\n", "http {\n    access_log off;\n");
    fs::write(place.path().join("nginx.conf"), config).unwrap();
    let mut nginx = Command::new("nginx");
    nginx.arg("-p").arg(place.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
    nginx.args(["-g", "daemon off; pid nginx.pid; user root;"]);
    spawn(nginx, place, port).await
}

async fn varnish(vcl: &str, more: &[&str]) -> Option<Proxy> {
    let (place, port) = (tempfile::tempdir().unwrap(), free());
    fs::write(place.path().join("storage.vcl"), vcl).unwrap();
    let mut varnish = Command::new("varnishd");
    varnish.arg("-F").arg("-a").arg(format!("127.0.0.1:{port}")).arg("-f").arg(place.path().join("storage.vcl"));
    varnish.arg("-n").arg(place.path()).args(["-s", "malloc,64m"]).args(more);
    spawn(varnish, place, port).await
}

async fn connect(port: u16, token: bool) -> Storage {
    let mut config = Config::new(format!("http://127.0.0.1:{port}"));
    config.token = token.then(|| Secret::new(TOKEN));
    Storage::new(Rest::connect(config).await.unwrap())
}

/// What the contract promises, whatever stands between. Metadata may be so large there.
async fn keeps_the_contract(storage: &Storage, below: &Storage, metadata: usize) {
    for round in 0..2 {
        for key in ["k", "notes/für heute", "a//b", "..", "a%2Fb", "a\\b", "q?x=1#y;z=+&"] {
            let first = storage.put_with(key, "one", PutOptions::new().if_absent()).await.unwrap();
            assert_eq!(below.get(key).await.unwrap().unwrap(), "one", "{key} {round}");
            let e = storage.put_with(key, "x", PutOptions::new().if_absent()).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::AlreadyExists);
            assert_eq!(storage.get(key).await.unwrap().unwrap(), "one");
            let second = storage.put_with(key, "three", PutOptions::new().if_match(first.etag.as_ref().unwrap())).await;
            let (first, second) = (first.etag.unwrap(), second.unwrap().etag.unwrap());
            // A value that was read before is not handed out again.
            assert_eq!(storage.get(key).await.unwrap().unwrap(), "three", "{key} {round}");
            assert_eq!(storage.stat(key).await.unwrap().unwrap().etag.unwrap(), second);
            let read = |options: GetOptions| storage.get_with(key, options);
            assert_eq!(read(GetOptions::new().range(1..3)).await.unwrap().unwrap(), "hr");
            assert_eq!(read(GetOptions::new().if_match(second.clone()).range(0..1)).await.unwrap().unwrap(), "t");
            // Even if a cache drops the condition on the way.
            let e = read(GetOptions::new().if_match(first.clone())).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::PreconditionFailed, "{key} {round}");
            let e = read(GetOptions::new().if_none_match(second.clone())).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotModified, "{key} {round}");
            assert_eq!(read(GetOptions::new().if_none_match(first.clone())).await.unwrap().unwrap(), "three");
            let e = storage.delete_with(key, DeleteOptions::new().if_match(&first)).await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::PreconditionFailed);
            storage.delete(key).await.unwrap();
            assert!(storage.get(key).await.unwrap().is_none() && storage.stat(key).await.unwrap().is_none());
        }
        // A stream whose length nobody knows, and its parts.
        let pieces = (0..120_u8).map(|n| Ok(Bytes::from(vec![n; 25_000])));
        storage.put("large", Body::stream(stream::iter(pieces))).await.unwrap();
        let value = below.get("large").await.unwrap().unwrap();
        assert_eq!((value.len(), storage.get("large").await.unwrap().unwrap()), (3_000_000, value.clone()));
        let part = storage.get_with("large", GetOptions::new().range(24_999..50_001)).await.unwrap().unwrap();
        assert_eq!(part, value.slice(24_999..50_001));
        let last = storage.get_with("large", GetOptions::new().range(2_999_999..)).await.unwrap().unwrap();
        assert_eq!(last, value.slice(2_999_999..));
        let described = Metadata::new().content_type("text/html").field("large", "x".repeat(metadata));
        storage.put_with("page", "<p>", PutOptions::new().metadata(described.clone())).await.unwrap();
        assert_eq!(*storage.stat("page").await.unwrap().unwrap().metadata.unwrap(), described);
        let keys: Vec<storage_core::Key> = storage.keys().await.unwrap().try_collect().await.unwrap();
        assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["large", "page"], "{round}");
        let tx = storage.begin().await.unwrap();
        tx.put("inside", "v").await.unwrap();
        assert!(storage.get("inside").await.unwrap().is_none());
        tx.commit().await.unwrap();
        assert_eq!(storage.get("inside").await.unwrap().unwrap(), "v");
        storage.rename("inside", "outside").await.unwrap();
        storage.copy_with("outside", "outside", CopyOptions::new()).await.unwrap();
        assert_eq!(storage.get_batch(["inside", "outside"]).await.unwrap().len(), 1);
        storage.clear().await.unwrap();
        let keys: Vec<storage_core::Key> = storage.keys().await.unwrap().try_collect().await.unwrap();
        assert!(keys.is_empty(), "{keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_nginx_as_deployed() {
    let below = Storage::new(Memory::new());
    let server = Running::start(below.clone(), 0).await;
    let (theirs, unused) = (server.address.port(), free());
    let config = |_: &Path, port: u16| {
        let mut config = deploy("nginx.conf");
        for (from, to) in [(8080, theirs), (8081, theirs), (8000, port), (8001, unused)] {
            config = config.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
        }
        config
    };
    let Some(proxy) = nginx(config).await else { return };
    keeps_the_contract(&connect(proxy.port, true).await, &below, 60_000).await;
}

/// nginx with nothing set but a cache for everything: it reads requests to their end before it passes them on, and decodes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn through_nginx_with_a_cache_for_everything() {
    let below = Storage::new(Memory::new());
    for tokens in [true, false] {
        let server =
            if tokens { Running::start(below.clone(), 0).await } else { Running::start_open(below.clone()).await };
        let theirs = server.address;
        let config = |_: &Path, port: u16| {
            format!(
                "events {{}}\nhttp {{\n proxy_cache_path cache keys_zone=all:1m;\n server {{ listen 127.0.0.1:{port};\n \
                 client_max_body_size 0;\n location / {{ proxy_pass http://{theirs}; proxy_set_header Host {theirs};\n \
                 proxy_cache all; proxy_cache_revalidate on; proxy_cache_valid any 10m; }} }} }}\n"
            )
        };
        let Some(proxy) = nginx(config).await else { return };
        keeps_the_contract(&connect(proxy.port, tokens).await, &below, 1000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_varnish_as_deployed() {
    let below = Storage::new(Memory::new());
    let server = Running::start(below.clone(), 0).await;
    let vcl = deploy("varnish.vcl").replace("\"8080\"", &format!("\"{}\"", server.address.port()));
    let sizes = ["http_req_hdr_len=128k", "http_req_size=256k", "http_resp_hdr_len=128k", "http_resp_size=256k"];
    let sizes = sizes.into_iter().chain(["workspace_client=512k", "workspace_backend=512k"]);
    let more: Vec<_> = sizes.flat_map(|size| ["-p", size]).collect();
    let Some(proxy) = varnish(&vcl, &more).await else { return };
    keeps_the_contract(&connect(proxy.port, true).await, &below, 60_000).await;
}

/// Varnish with nothing set but its backend, which drops conditions on reads, asks for gzip, and keeps what does not forbid it.
#[tokio::test(flavor = "multi_thread")]
async fn through_varnish_as_it_comes() {
    let below = Storage::new(Memory::new());
    for tokens in [true, false] {
        let server =
            if tokens { Running::start(below.clone(), 0).await } else { Running::start_open(below.clone()).await };
        let port = server.address.port();
        let vcl = format!(
            "vcl 4.1;\nbackend default {{ .host = \"127.0.0.1\"; .port = \"{port}\"; }}\n\
             sub vcl_backend_fetch {{ set bereq.http.Host = \"127.0.0.1:{port}\"; }}\n"
        );
        let Some(proxy) = varnish(&vcl, &[]).await else { return };
        keeps_the_contract(&connect(proxy.port, tokens).await, &below, 1000).await;
    }
}

/// nginx with WebDAV at `/files/` has the plain routes but for the listing. It ignores every condition of a write, so none is sent.
#[tokio::test(flavor = "multi_thread")]
async fn over_the_webdav_of_nginx() {
    let config = |place: &Path, port: u16| {
        fs::create_dir(place.join("files")).unwrap();
        fs::write(place.join("list.json"), "{\"keys\": []}").unwrap();
        format!(
            "events {{}}\nhttp {{\n server {{ listen 127.0.0.1:{port};\n client_max_body_size 0;\n root {root};\n \
             location = /files {{ default_type application/json; alias {root}/list.json; }}\n \
             location /files/ {{ dav_methods PUT DELETE MKCOL COPY MOVE; }} }} }}\n",
            root = place.display()
        )
    };
    let Some(proxy) = nginx(config).await else { return };
    let mut config = Config::new(format!("http://127.0.0.1:{}", proxy.port));
    config.api = Api::Files;
    let storage = Storage::new(Rest::connect(config).await.unwrap());
    let file = |key: &str| fs::read_to_string(proxy.place.path().join("files").join(key));
    for (key, value) in [("k", "one"), ("für heute", "v"), ("k", "three"), ("empty", "")] {
        storage.put(key, value).await.unwrap();
        assert_eq!(file(key).unwrap(), value);
        assert_eq!(storage.get(key).await.unwrap().unwrap(), value);
        assert_eq!(storage.stat(key).await.unwrap().unwrap().size, value.len() as u64);
    }
    assert_eq!(storage.get_with("k", GetOptions::new().range(1..3)).await.unwrap().unwrap(), "hr");
    // A condition that the server would ignore is refused before anything is sent.
    let etag = storage_core::Etag::new("1");
    for options in [PutOptions::new().if_absent(), PutOptions::new().if_match(&etag)] {
        assert_eq!(storage.put_with("k", "lost", options).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    let e = storage.delete_with("k", DeleteOptions::new().if_match(&etag)).await.unwrap_err();
    assert_eq!((e.kind(), file("k").unwrap().as_str()), (ErrorKind::Unsupported, "three"));
    // A copy onto itself, by which this server would empty the file, keeps the value; a rename moves it.
    storage.copy("k", "k").await.unwrap();
    assert_eq!(file("k").unwrap(), "three");
    storage.rename("k", "l").await.unwrap();
    assert!(file("k").is_err() && file("l").unwrap() == "three");
    // It decodes `%2F`, has no such directory, and says so by 500; nothing is taken for done.
    let e = storage.put("missing/k", "v").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && file("missing/k").is_err(), "{e:?}");
    assert!(storage.get("k").await.unwrap().is_none());
    storage.delete("l").await.unwrap();
    assert!(file("l").is_err());
}
