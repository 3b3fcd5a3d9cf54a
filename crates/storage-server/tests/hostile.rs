//! Clients that mean harm: what they send is refused with problem details, stores nothing, and keeps nobody busy for long.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::{Duration, Instant};

use storage_server::Config;
use support::{Running, TokenFile, expect_problem, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Sends this, and then bytes without end, while nobody reads; says how many went.
async fn flood(server: &Running, head: &str, most: usize) -> usize {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (piece, mut sent) = (vec![b'x'; 256 << 10], 0);
    let sending = async {
        while sent < most && stream.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
    };
    timeout(Duration::from_secs(20), sending).await.expect("expected the connection to end");
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_wants_is_not_read_for_long() {
    let server = start(Config::default()).await;
    let host = server.address;
    for refused in [
        format!("PUT /files/k HTTP/1.1\r\nhost: {host}\r\ncontent-encoding: gzip\r\n"),
        format!("POST /files/k HTTP/1.1\r\nhost: {host}\r\n"),
        format!("PUT /nothing HTTP/1.1\r\nhost: {host}\r\n"),
        "PUT /files/k HTTP/1.1\r\nhost: evil.example\r\n".to_owned(),
    ] {
        let most = 1 << 30;
        let sent = flood(&server, &format!("{refused}content-length: {most}\r\n\r\n"), most).await;
        // The bound is 16 MiB; the rest stands in buffers of the system.
        assert!(sent < 40 << 20, "{sent} bytes of a body that was refused were taken: {refused}");
    }
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn what_a_client_asks_leave_for_is_refused_before_it_is_sent() {
    let server = start(Config::default()).await;
    let head = format!(
        "PUT /files/k HTTP/1.1\r\nhost: {}\r\ncontent-length: 100000000\r\nexpect: 100-continue\r\n",
        server.address
    );
    let begin = async |more: &str| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(format!("{head}{more}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(begin("content-encoding: gzip\r\n").await, "HTTP/1.1 415");
    assert_eq!(begin("storage-unknown: 1\r\n").await, "HTTP/1.1 400");
    assert_eq!(begin("").await, "HTTP/1.1 100");
}

/// Answers of up to 64 KiB do not count towards `max_requests` while they are sent. Those who do not read them hold connections, of which
/// there are so many, and for no longer than `write_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_of_small_answers_are_bounded_by_their_connections() {
    let mut config = Config::default();
    (config.max_connections, config.max_requests) = (4, 2);
    (config.write_timeout, config.header_timeout) = (Duration::from_millis(500), Duration::from_millis(500));
    let server = start(config).await;
    server.storage.put("k", vec![0; 60_000]).await.unwrap();
    let many = format!("GET /files/k HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).repeat(1000);
    let before = memory();
    let mut held = Vec::new();
    for _ in 0..24 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // More answers than any buffer takes, and nobody reads one.
        let _ = timeout(Duration::from_millis(20), stream.write_all(many.as_bytes())).await;
        held.push(stream);
    }
    let begun = Instant::now();
    // Whoever comes last waits until those before are given up, four at a time.
    let answered = timeout(Duration::from_secs(20), server.request("GET", "/files").send()).await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
    assert!(begun.elapsed() > Duration::from_millis(400), "expected that there are four connections at a time");
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 << 10, "memory has grown by {grown} KiB");
    drop(held);
}

/// Resident memory of this process, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_with_problem_details() {
    let mut config = Config::default();
    config.max_header = 8 << 10;
    let server = start(config).await;
    for (name, size) in [("storage-metadata", 9 << 10), ("x-anything", 12 << 10), ("cookie", 8 << 10)] {
        let put = server.request("PUT", "/files/k").header(name, "A".repeat(size)).body("v");
        expect_problem(put.send().await.unwrap(), 431, "too_large").await;
    }
    let long = format!("/files/k?x={}", "A".repeat(9 << 10));
    expect_problem(server.request("PUT", &long).body("v").send().await.unwrap(), 431, "too_large").await;
    // However many, and however large: never more than a refusal.
    for head in ["x: y\r\n".repeat(2000), format!("x: {}\r\n", "A".repeat(1 << 20))] {
        let request = format!("PUT /files/k HTTP/1.1\r\nhost: {}\r\n{head}content-length: 1\r\n\r\nv", server.address);
        let answer = server.raw_and_close(request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn requests_that_two_programs_would_read_differently_are_refused() {
    let server = start(Config::default()).await;
    let host = format!("host: {}\r\n", server.address);
    for request in [
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: 1\r\ncontent-length: 2\r\n\r\nvv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: 1, 2\r\n\r\nvv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: -1\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: +1\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: 0x1\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length: 99999999999999999999\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}transfer-encoding: gzip\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}transfer-encoding: chunked, gzip\r\n\r\n1\r\nv\r\n0\r\n\r\n"),
        format!("PUT /files/k HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\nx\r\nv\r\n0\r\n\r\n"),
        format!("PUT /files/k HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\n-1\r\nv\r\n0\r\n\r\n"),
        format!("PUT /files/k HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nv\r\n0\r\n\r\n"),
        format!("PUT /files/k HTTP/1.0\r\n{host}transfer-encoding: chunked\r\n\r\n1\r\nv\r\n0\r\n\r\n"),
        format!("PUT /files/k HTTP/1.1\r\n{host}content-length : 1\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}x: a\r\n folded: b\r\ncontent-length: 1\r\n\r\nv"),
        format!("PUT /files/k HTTP/3.0\r\n{host}content-length: 1\r\n\r\nv"),
        format!("PUT /files/k\r\n{host}content-length: 1\r\n\r\nv"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "PUT /files/k HTTP/1.1\r\ncontent-length: 1\r\n\r\nv".to_owned(),
        format!("PUT /files/k HTTP/1.1\r\n{host}{host}content-length: 1\r\n\r\nv"),
        format!("PUT /files/k HTTP/1.1\r\n{host}host: evil.example\r\ncontent-length: 1\r\n\r\nv"),
    ] {
        let answer = server.raw_and_close(request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["", "400", "505"].contains(&status), "{request:?}: {answer}");
        assert_eq!(server.count().await, 0, "{request:?}");
    }
}

const TOKENS: &str = "
[[token]]
name = 'reader'
secret = 'reader-0123456789abcdef'
scopes = ['read']
[[token]]
name = 'writer'
secret = 'writer-0123456789abcdef'
scopes = ['read', 'write']
prefix = 'own/'
[[token]]
name = 'old'
secret = 'old-0123456789abcdef'
scopes = ['read', 'write', 'clear']
expires = '2020-01-01T00:00:00Z'
[[token]]
name = 'none'
secret = 'none-0123456789abcdef'
scopes = []
";

/// Every request that could change something, on the key `a` of somebody else.
const WRITES: [(&str, &str, &str, &str); 14] = [
    ("PUT", "/files/a", "", "v"),
    ("PUT", "/files/a", "upload-complete: ?0\r\n", "v"),
    ("PUT", "/v1/objects/YQ", "", "v"),
    ("DELETE", "/files/a", "", ""),
    ("DELETE", "/v1/objects/YQ", "", ""),
    ("DELETE", "/files", "", ""),
    ("POST", "/v1/clear", "content-type: application/json\r\n", r#"{"prefix": ""}"#),
    ("POST", "/v1/clear", "content-type: application/json\r\n", r#"{"prefix": "a"}"#),
    ("POST", "/v1/copy", "content-type: application/json\r\n", r#"{"from": "a", "to": "b"}"#),
    ("POST", "/v1/rename", "content-type: application/json\r\n", r#"{"from": "a", "to": "b"}"#),
    ("POST", "/v1/batch/delete", "content-type: application/json\r\n", r#"{"items": [{"key": "a"}]}"#),
    (
        "POST",
        "/v1/batch/put",
        "content-type: application/vnd.storage.frames\r\n",
        "{\"key\":\"a\",\"body\":1}\nv{\"end\":1}\n",
    ),
    (
        "POST",
        "/v1/batch/put?atomic=true",
        "content-type: application/vnd.storage.frames\r\n",
        "{\"key\":\"a\",\"body\":1}\nv{\"end\":1}\n",
    ),
    ("PUT", "/files/a", "if-none-match: *\r\n", "v"),
];

#[tokio::test]
async fn no_token_that_is_expired_forged_or_too_small_changes_anything() {
    let file = TokenFile::new(TOKENS);
    let server = start(file.config()).await;
    server.storage.put("a", "of somebody else").await.unwrap();
    let before = server.storage.stat("a").await.unwrap().unwrap().etag;
    for (authorization, status, kind) in [
        ("Bearer reader-0123456789abcdef", 403, "permission_denied"),
        ("Bearer writer-0123456789abcdef", 403, "permission_denied"),
        ("Bearer none-0123456789abcdef", 403, "permission_denied"),
        ("Bearer old-0123456789abcdef", 401, "unauthenticated"),
        ("Bearer forged-0123456789abcdef", 401, "unauthenticated"),
        // Too much or too little of one that is known.
        ("Bearer writer-0123456789abcde", 401, "unauthenticated"),
        ("Bearer writer-0123456789abcdefg", 401, "unauthenticated"),
        ("Bearer WRITER-0123456789ABCDEF", 401, "unauthenticated"),
        ("Bearer ", 401, "unauthenticated"),
        ("Bearer", 401, "unauthenticated"),
        ("", 401, "unauthenticated"),
        ("writer-0123456789abcdef", 401, "unauthenticated"),
        ("Basic d3JpdGVyOndyaXRlci0wMTIzNDU2Nzg5YWJjZGVm", 401, "unauthenticated"),
        // Its digest is no token.
        ("Bearer 8d2ab5d07e90ee0c9d7eb8f0ddc4e3a2a7f3c8d1c3ed5a0b3f4d2f26f1b8b7aa", 401, "unauthenticated"),
    ] {
        for (method, path, headers, body) in WRITES {
            let mut request = server.request(method, path).header("authorization", authorization).body(body);
            for line in headers.lines() {
                let (name, value) = line.split_once(": ").unwrap();
                request = request.header(name, value);
            }
            let answer = request.send().await.unwrap();
            // `DELETE /files` and a clear of everything are of what the token may see, for which it has no scope either.
            assert_eq!(answer.status(), status, "{authorization}: {method} {path}");
            if status == 401 {
                assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            }
            let text = expect_problem(answer, status, kind).await;
            assert!(!text.contains("0123456789"), "{text}");
        }
    }
    assert_eq!(server.count().await, 1);
    assert_eq!(server.storage.stat("a").await.unwrap().unwrap().etag, before);
}

#[tokio::test]
async fn bodies_with_other_digests_change_nothing_wherever_they_are() {
    let server = start(Config::default()).await;
    server.storage.put("a", "v").await.unwrap();
    let wrong = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let sha512 = format!("sha-512=:{}==:", "A".repeat(86));
    for (method, path, headers, body) in WRITES {
        // Those without a body have the digest of nothing.
        if body.is_empty() || path == "/v1/clear" && body.contains("\"\"") {
            continue;
        }
        for digest in [wrong, &sha512, &format!("md5=:AAAA:, {wrong}")] {
            let mut request = server.request(method, path).header("content-digest", digest).body(body);
            for line in headers.lines().filter(|line| !line.starts_with("upload")) {
                let (name, value) = line.split_once(": ").unwrap();
                request = request.header(name, value);
            }
            let text = expect_problem(request.send().await.unwrap(), 400, "invalid_input").await;
            assert!(text.contains("wrong_digest"), "{method} {path}: {text}");
        }
    }
    // One that comes behind the body would not be looked at.
    let trailer = format!(
        "PUT /files/k HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\ntrailer: Content-Digest\r\n\r\n\
         1\r\nv\r\n0\r\ncontent-digest: {wrong}\r\n\r\n",
        server.address
    );
    let answer = server.raw_and_close(trailer.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("trailers"), "{answer}");
    assert_eq!(server.count().await, 1);
    assert_eq!(server.storage.get("a").await.unwrap().unwrap(), "v");
}

#[tokio::test]
async fn no_path_leads_to_another_place() {
    let server = start(Config::default()).await;
    let ask = async |path: &str| {
        let request = format!(
            "PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 1\r\nconnection: close\r\n\r\nv",
            server.address
        );
        server.raw(request.as_bytes()).await.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for path in [
        "/files/%2e",
        "/files/.%2e",
        "/files/%2E%2E%2Fv1",
        "/files/..%2f..%2fetc%2fpasswd",
        "/files/a%2f.%2fb",
        "/files/..%5c..%5cwindows",
        "/files/%252e%252e",
        "/files/%c0%ae%c0%ae",
        "/files/%ed%a0%80",
        "/files/%u002e",
        "/files/a%7fb",
        "/files/a%1fb",
        "/files/./a",
        "/files/a/../b",
        "/./files/a",
        "/files/../files/a",
        "/files//a",
        "/FILES/a",
        "/files/a/",
        "/v1/objects/",
        "/v1/objects/a%2Fb",
        "/v1/objects/YQ/",
        "/v1/objects/%59%51",
        "/v1/objects/Y",
        "/v1/objects/YR",
        "/v1/../files/a",
        "/v1/uploads/../objects/YQ",
        "*",
        "files/a",
    ] {
        let status = ask(path).await;
        assert!(["400", "404", "405"].contains(&status.as_str()), "{path}: {status}");
        assert_eq!(server.count().await, 0, "{path}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_as_long_as_it_is_used() {
    let mut config = Config::default();
    config.header_timeout = Duration::from_millis(600);
    let server = start(config).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("HEAD /files HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    let begun = Instant::now();
    // Far longer than the timeout in all.
    for n in 0..6 {
        let (first, rest) = request.split_at(10 + n);
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = stream.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..n]));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1700));
    // Idle, it is closed in time; and so is one whose next request does not end, however often a byte of it comes.
    for endless in [false, true] {
        let begun = Instant::now();
        let mut other = TcpStream::connect(server.address).await.unwrap();
        let stream = if endless { &mut other } else { &mut stream };
        let mut byte = [0];
        loop {
            assert!(begun.elapsed() < Duration::from_secs(5), "expected the connection to end");
            if endless && stream.write_all(b"G").await.is_err() {
                break;
            }
            match timeout(Duration::from_millis(50), stream.read(&mut byte)).await {
                Err(_) => {}
                Ok(Ok(1)) => {}
                Ok(_) => break,
            }
        }
        assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
    }
}
