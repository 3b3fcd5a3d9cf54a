//! What the client sends, and what it believes of an answer: ranges, etags, lengths and paths.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::sync::{Arc, Mutex};

use storage_core::{ErrorKind, Etag, GetOptions, Key, Storage};
use storage_rest::{Api, Config, Rest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const ABOUT: &str = r#"{"protocol": 1, "boot": "b", "uptime_ms": 0, "access": {"read": true, "write": true}, "store": {"id": "x", "name": "X",
    "version": "1", "capabilities": {"conditional": true, "conditional_delete": true, "version_etags": true}, "consistency": "shared",
    "isolation": "snapshot", "limits": {"key": 1024, "value": 1000000, "metadata": 1000, "time_granularity_ns": 1}}}"#;

/// A server that answers as it is told, and keeps what it was asked.
struct Scripted {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<String>>>::default());
        let (answer, kept) = (Arc::new(answer), asked.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (answer, kept) = (answer.clone(), kept.clone());
                tokio::spawn(async move {
                    let (mut request, mut piece) = (String::new(), vec![0; 64 << 10]);
                    while !request.contains("\r\n\r\n") {
                        match client.read(&mut piece).await {
                            Ok(n @ 1..) => request.push_str(&String::from_utf8_lossy(&piece[..n])),
                            _ => return,
                        }
                    }
                    kept.lock().unwrap().push(request.clone());
                    let answer = match request.starts_with("GET /v1 ") {
                        true => said("200 OK", "content-type: application/json\r\n", ABOUT),
                        false => answer(&request),
                    };
                    let _ = client.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { address, asked }
    }

    async fn connect(&self, api: Api) -> Storage {
        let mut config = Config::new(format!("http://{}", self.address));
        config.api = api;
        Storage::new(Rest::connect(config).await.unwrap())
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn said(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// The value of a header of a request.
fn header<'r>(request: &'r str, name: &str) -> Option<&'r str> {
    let mut lines = request.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// `{"size":3,"etag":"1"}`
const ENTRY: &str = "storage-entry: eyJzaXplIjozLCJldGFnIjoiMSJ9\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_etag_is_neither_believed_nor_sent() {
    // As Varnish and others hand them out where they compress.
    for weak in ["W/\"1\"", "W/\"1-gz\""] {
        let server = Scripted::start(move |_| said("200 OK", &format!("{ENTRY}etag: {weak}\r\n"), "abc")).await;
        let storage = server.connect(Api::V1).await;
        let found = storage.open("k", GetOptions::new()).await.unwrap().unwrap();
        assert_eq!(found.entry.etag, Some(Etag::new("1")));
        // Where the entry was left out it is asked for.
        let key = Key::parse("k").unwrap();
        let found = storage.backend().get(&key, GetOptions::new().entry(false)).await.unwrap().unwrap();
        assert_eq!(found.entry.etag, Some(Etag::new("1")));
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "abc");
        let read = GetOptions::new().if_match(Etag::new("1")).range(0..2);
        assert_eq!(storage.get_with("k", read).await.unwrap().unwrap(), "ab");
        for request in server.asked() {
            assert!(!request.contains("W/"), "{request}");
            assert!(header(&request, "if-match").is_none_or(|tag| tag == "\"1\""), "{request}");
            // Nothing may be coded on its way.
            assert_eq!(header(&request, "accept-encoding"), Some("identity"), "{request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_asked_for_one_by_one_and_each_must_be_of_the_same_etag() {
    const SIZE: usize = 300_000;
    // Behind the first chunk the value is another one, and the condition was dropped on the way.
    for changed in [false, true] {
        let server = Scripted::start(move |request| {
            let range = header(request, "range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
            let (begin, end) =
                range.map_or((0, SIZE - 1), |(begin, end)| (begin.parse().unwrap(), end.parse().unwrap()));
            let etag = if changed && begin > 0 { "2" } else { "1" };
            let entry =
                data_encoding::BASE64URL_NOPAD.encode(format!("{{\"size\":{SIZE},\"etag\":\"{etag}\"}}").as_bytes());
            let headers =
                format!("storage-entry: {entry}\r\netag: \"{etag}\"\r\ncontent-range: bytes {begin}-{end}/{SIZE}\r\n");
            said("206 Partial Content", &headers, &etag.repeat(end + 1 - begin))
        });
        let server = server.await;
        let storage = server.connect(Api::V1).await;
        let read = storage.get_with("k", GetOptions::new().parallel(3, 100_000).range(0..SIZE as u64)).await;
        match read {
            Ok(value) => assert!(!changed && value.unwrap() == "1".repeat(SIZE)),
            Err(e) => {
                assert!(changed && [ErrorKind::PreconditionFailed, ErrorKind::Conflict].contains(&e.kind()), "{e:?}")
            }
        }
        let ranges: Vec<_> =
            server.asked().iter().filter_map(|request| header(request, "range").map(str::to_owned)).collect();
        assert!(ranges.len() > 1 && ranges.iter().all(|range| !range.contains(',')), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_is_changed_by_a_library_on_its_way() {
    // What clients and proxies take away, or turn into something else.
    let keys = [
        ".", "..", "./a", "../a", "a/.", "a/..", "a/./b", "a/../b", "/a", "a/", "//", "a//b", "a\\b", "..\\a",
        "%2e%2e", "a%2Fb", "a\nb", "a\tb", "a\u{7f}",
    ];
    let server = Scripted::start(|request| match request.starts_with("GET /files ") {
        true => said("200 OK", "", "{\"keys\": []}"),
        false => said("200 OK", "", ""),
    });
    let server = server.await;
    let storage = server.connect(Api::Files).await;
    server.asked();
    for key in keys {
        assert_eq!(storage.put(key, "v").await.unwrap_err().kind(), ErrorKind::InvalidKey, "{key:?}");
        assert_eq!(storage.get(key).await.unwrap_err().kind(), ErrorKind::InvalidKey, "{key:?}");
        assert_eq!(storage.delete(key).await.unwrap_err().kind(), ErrorKind::InvalidKey, "{key:?}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    // All others go as one segment.
    for (key, path) in
        [("a/b", "/files/a%2Fb"), ("a b?c#d", "/files/a%20b%3Fc%23d"), ("ü~*'", "/files/%C3%BC%7E%2A%27")]
    {
        storage.put(key, "v").await.unwrap();
        let asked = server.asked();
        assert!(asked.iter().any(|request| request.starts_with(&format!("PUT {path} "))), "{asked:?}");
    }
    // And on a server of ours every key does, in base64url.
    let server = Scripted::start(|_| said("200 OK", ENTRY, "abc")).await;
    let storage = server.connect(Api::V1).await;
    server.asked();
    for key in keys {
        storage.get(key).await.unwrap();
        let path = format!("GET /v1/objects/{}?", data_encoding::BASE64URL_NOPAD.encode(key.as_bytes()));
        let asked = server.asked();
        assert!(asked.len() == 1 && asked[0].starts_with(&path), "{key:?}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_is_what_the_header_of_an_answer_to_head_says() {
    let server = Scripted::start(|request| match request {
        head if head.starts_with("HEAD /files/k ") => {
            "HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nconnection: close\r\n\r\n".into()
        }
        head if head.starts_with("HEAD /files/none ") => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".into(),
        _ => said("404 Not Found", "", ""),
    });
    let server = server.await;
    let storage = server.connect(Api::Files).await;
    assert_eq!(storage.stat("k").await.unwrap().unwrap().size, 12345);
    assert!(storage.stat("absent").await.unwrap().is_none());
    let e = storage.stat("none").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
}
