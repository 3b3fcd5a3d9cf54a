//! What no client should send: it is refused with the right status, and nothing is stored.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use storage_server::Config;
use support::{Running, expect_problem, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn head(server: &Running, rest: &str) -> String {
    format!("PUT /files/k HTTP/1.1\r\nhost: {}\r\n{rest}", server.address)
}

#[tokio::test]
async fn headers_that_are_too_large_or_no_headers_are_refused() {
    let mut config = Config::default();
    config.max_header = 8 << 10;
    let server = start(config).await;
    let large = head(&server, &format!("storage-metadata: {}\r\ncontent-length: 1\r\n\r\nv", "A".repeat(20 << 10)));
    let answer = server.raw_and_close(large.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    for odd in [
        "no header\r\ncontent-length: 1\r\n\r\nv",
        "a\0b: c\r\ncontent-length: 1\r\n\r\nv",
        "content-length: 1\r\ncontent-length: 2\r\n\r\nv",
    ] {
        let answer = server.raw_and_close(head(&server, odd).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{odd:?}: {answer}");
    }
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_stores_nothing() {
    let server = start(Config::default()).await;
    for len in [5, 100_000] {
        server.raw_and_close(head(&server, &format!("content-length: {len}\r\n\r\nhell")).as_bytes()).await;
        server.raw_and_close(head(&server, "transfer-encoding: chunked\r\n\r\n5\r\nhell").as_bytes()).await;
        // The end of the chunks is missing.
        server.raw_and_close(head(&server, "transfer-encoding: chunked\r\n\r\n4\r\nhell\r\n").as_bytes()).await;
        assert_eq!(server.count().await, 0);
    }
    // What is longer is the next request, which is none.
    let answer = server.raw_and_close(head(&server, "content-length: 4\r\n\r\nhell and more\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 400"), "{answer}");
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "hell");
}

#[tokio::test]
async fn paths_with_tricks_name_no_value() {
    let server = start(Config::default()).await;
    let ask = async |path: &str| {
        let request = format!(
            "PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nv",
            server.address
        );
        let answer = server.raw(request.as_bytes()).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for (path, status) in [
        ("/files/..", "400"),
        ("/files/%2e%2e", "400"),
        ("/files/.", "400"),
        ("/files/a%2F..%2Fb", "400"),
        ("/files/a%2F%2Fb", "400"),
        ("/files/%2Fetc%2Fpasswd", "400"),
        ("/files/a%2F", "400"),
        ("/files/a%5Cb", "400"),
        ("/files/a%25b", "400"),
        ("/files/a%0Ab", "400"),
        ("/files/a%00b", "400"),
        ("/files/%FF", "400"),
        ("/files/a%b", "400"),
        ("/files/a%", "400"),
        ("/files/../v1/objects/YQ", "400"),
        ("/files/a/b", "400"),
        ("/files/", "400"),
        ("/files//", "400"),
        ("//files/k", "404"),
        ("/v1/objects/..", "400"),
        ("/v1/objects/YQ==", "400"),
        ("/v1/objects/_w", "400"),
        ("/v1/objects/AA", "400"),
        ("/v2/objects/YQ", "404"),
        ("/v1/object/YQ", "404"),
        ("/files/k?version=1", "400"),
        ("/files/k?unknown", "400"),
    ] {
        assert_eq!(ask(path).await, status, "{path}");
    }
    let long = format!("/files/{}", "k".repeat(1025));
    assert_eq!(ask(&long).await, "400");
    assert_eq!(server.count().await, 0);
    // In base64url every key has its place.
    assert_eq!(ask("/v1/objects/Li4").await, "200");
    assert_eq!(server.storage.get("..").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn what_is_not_known_is_refused() {
    let server = start(Config::default()).await;
    let put = || server.request("PUT", "/files/k").body("v");
    for (name, value) in [
        ("storage-unknown", "1"),
        ("storage-metadata", "not base64!"),
        ("storage-metadata", "e30="),
        ("storage-metadata", "W10"),
        ("storage-write-id", "1"),
        ("storage-write-id", "boot.x.0123456789abcdef"),
        ("content-range", "bytes 0-0/1"),
    ] {
        expect_problem(put().header(name, value).send().await.unwrap(), 400, "invalid_input").await;
    }
    // `{"unknown":1}`
    expect_problem(put().header("storage-metadata", "eyJ1bmtub3duIjoxfQ").send().await.unwrap(), 400, "invalid_input")
        .await;
    let gone = put().header("storage-transaction", "none").send().await.unwrap();
    assert!(expect_problem(gone, 410, "closed").await.contains("transaction_ended"));
    let coded = put().header("content-encoding", "gzip").send().await.unwrap();
    expect_problem(coded, 415, "unsupported").await;
    expect_problem(put().header("storage-source", "YQ").send().await.unwrap(), 501, "unsupported").await;
    let json = |path: &str, body: &'static str| {
        server.request("POST", path).header("content-type", "application/json").body(body).send()
    };
    for (path, body) in [
        ("/v1/copy", ""),
        ("/v1/copy", "[\"a\", \"b\"]"),
        ("/v1/copy", r#"{"from": "a", "to": "b", "unknown": 1}"#),
        ("/v1/copy", r#"{"from": "a", "to": "b", "condition": {"if_absent": true, "if_match": "1"}}"#),
        ("/v1/query", r#"{"unknown": 1}"#),
        ("/v1/query", r#"{"filters": [{"field": {"name": "a\u0000", "comparison": "equal", "value": 1}}]}"#),
        ("/v1/presign", r#"{"key": "a", "method": "POST", "expires_in_ms": 1000}"#),
        ("/v1/copy?x=1", r#"{"from": "a", "to": "b"}"#),
    ] {
        expect_problem(json(path, body).await.unwrap(), 400, "invalid_input").await;
    }
    expect_problem(json("/v1/copy", r#"{"from": "", "to": "b"}"#).await.unwrap(), 400, "invalid_key").await;
    let text = server.request("POST", "/v1/copy").body("{}").send().await.unwrap();
    expect_problem(text, 415, "invalid_input").await;
    for (method, path) in [("POST", "/files/k"), ("DELETE", "/v1"), ("PATCH", "/v1/list"), ("TRACE", "/files")] {
        let refused = server.request(method, path).send().await.unwrap();
        assert!(!refused.headers()["allow"].is_empty());
        let text = expect_problem(refused, 405, "unsupported").await;
        // It is the route that does not take the method, whatever the store can do.
        assert!(text.contains(&format!("the method {method}")) && !text.contains("backend"), "{text}");
    }
    for query in ["limit=-1", "limit=x", "unknown=1", "delimited=maybe", "prefix=a&prefix=b"] {
        expect_problem(server.request("GET", &format!("/v1/list?{query}")).send().await.unwrap(), 400, "invalid_input")
            .await;
    }
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn limits_are_kept() {
    let mut config = Config::default();
    (config.max_value, config.max_request, config.max_batch, config.max_filters) = (Some(10), 1000, 2, 3);
    let server = start(config).await;
    let large = server.request("PUT", "/files/k").body("0123456789A").send().await.unwrap();
    expect_problem(large, 413, "too_large").await;
    let pieces = futures_util::stream::iter(["01234", "56789", "A"].map(Ok::<_, std::io::Error>));
    let body = reqwest::Body::wrap(Chunked(std::sync::Mutex::new(Box::pin(pieces))));
    expect_problem(server.request("PUT", "/files/k").body(body).send().await.unwrap(), 413, "too_large").await;
    let json = |path: &str, body: String| {
        server.request("POST", path).header("content-type", "application/json").body(body).send()
    };
    let items = r#"{"items": [{"key": "a"}, {"key": "b"}, {"key": "c"}]}"#;
    for path in ["/v1/batch/get", "/v1/batch/delete"] {
        expect_problem(json(path, items.into()).await.unwrap(), 413, "too_large").await;
    }
    let filters = r#"{"filters": [{"any_tag": ["a", "b", "c"]}]}"#;
    expect_problem(json("/v1/query", filters.into()).await.unwrap(), 413, "too_large").await;
    let long = format!(r#"{{"prefix": "{}"}}"#, "a".repeat(1000));
    expect_problem(json("/v1/query", long).await.unwrap(), 413, "too_large").await;
    let deep = format!(r#"{{"prefix": {}"#, "[".repeat(900));
    expect_problem(json("/v1/query", deep).await.unwrap(), 400, "invalid_input").await;
    assert_eq!(server.count().await, 0);
}

/// A body whose length nobody knows.
struct Chunked<S>(std::sync::Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures_util::Stream<Item = Result<&'static str, std::io::Error>>> http_body::Body for Chunked<S> {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>> {
        let stream = self.0.get_mut().unwrap();
        let piece = stream.as_mut().poll_next(cx);
        piece.map(|piece| piece.map(|piece| piece.map(|piece| http_body::Frame::data(piece.into()))))
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_still_sends() {
    let server = start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let refused = "content-encoding: gzip\r\ncontent-length: 200000\r\n\r\n";
    stream.write_all(head(&server, refused).as_bytes()).await.unwrap();
    for _ in 0..20 {
        // Long after the answer, which is read last.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&[0; 10_000]).await.unwrap();
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 415");
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn slow_clients_are_given_up() {
    let mut config = Config::default();
    (config.body_timeout, config.header_timeout) = (Duration::from_millis(300), Duration::from_millis(300));
    let server = start(config).await;
    // Headers that do not end.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PUT /files/k HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok());
    // A body that stands still, and one that comes by single bytes.
    let still = head(&server, "content-length: 10\r\n\r\nv");
    let still = server.raw(still.as_bytes());
    let answer = tokio::time::timeout(Duration::from_secs(5), still).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("broken_body"), "{answer}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head(&server, "content-length: 100\r\n\r\n").as_bytes()).await.unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if stream.write_all(b"v").await.is_err() {
            break;
        }
        let mut piece = [0; 100];
        if let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut piece)).await {
            assert!(piece[..n].starts_with(b"HTTP/1.1 408") || n == 0);
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let mut config = Config::default();
    config.write_timeout = Duration::from_millis(300);
    let server = start(config).await;
    server.storage.put("large", vec![0; 64 << 20]).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("GET /files/large HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.unwrap();
    assert!(read.is_err() || rest.len() < 64 << 20, "{}", rest.len());
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again() {
    let mut config = Config::default();
    config.max_requests = 1;
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head(&server, "content-length: 100\r\n\r\nv").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = server.request("GET", "/files").send().await.unwrap();
    assert_eq!(busy.headers()["retry-after"], "1");
    expect_problem(busy, 429, "rate_limited").await;
    drop(stream);
    let mut left = 100;
    while server.status("GET", "/files").await != 200 {
        left -= 1;
        assert!(left > 0, "expected the place to be free again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
