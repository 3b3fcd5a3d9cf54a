//! What caches, proxies and clients of other people were seen to do, against the server itself; `proxies.rs` has the real programs.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use reqwest::{RequestBuilder, Response};
use storage_core::{Body, Bytes, Metadata, PutOptions, Storage};
use storage_fs::Fs;
use storage_memory::Memory;
use storage_server::{CacheRule, Config};
use support::{Running, TokenFile, expect_problem, start, start_over, start_uploads};

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A request of every kind, and the answers to it: done, absent, refused, partial, unchanged, unknown.
fn of_every_kind(server: &Running) -> Vec<(&'static str, RequestBuilder)> {
    let json = |path: &str, body: &'static str| {
        server.request("POST", path).header("content-type", "application/json").body(body)
    };
    let read = |path: &str| server.request("GET", path);
    let frames = "application/vnd.storage.frames";
    vec![
        ("put", server.request("PUT", "/files/k").body("value")),
        ("put refused", server.request("PUT", "/files/k").header("if-none-match", "*").body("v")),
        ("put of v1", server.request("PUT", "/v1/objects/aw").body("value")),
        ("upload", server.request("PUT", "/files/k").header("upload-complete", "?0")),
        ("upload options", server.request("OPTIONS", "/files/k")),
        ("upload head", server.request("HEAD", "/v1/uploads/AAAA")),
        ("get", read("/files/k")),
        ("get of v1", read("/v1/objects/aw")),
        ("range", read("/files/k").header("range", "bytes=0-1")),
        ("range not there", read("/files/k").header("range", "bytes=90-")),
        ("unchanged", read("/files/k").header("if-none-match", "*")),
        ("condition", read("/files/k").header("if-match", "\"no\"")),
        ("head", server.request("HEAD", "/files/k")),
        ("head absent", server.request("HEAD", "/files/absent")),
        ("absent", read("/files/absent")),
        ("bad key", read("/files/a%2F%2Fb")),
        ("keys", read("/files")),
        ("about", read("/v1")),
        ("entry", read("/v1/entries/aw")),
        ("versions", read("/v1/versions/aw")),
        ("list", read("/v1/list")),
        ("query", json("/v1/query", "{}")),
        ("copy", json("/v1/copy", r#"{"from": "k", "to": "l"}"#)),
        ("rename", json("/v1/rename", r#"{"from": "l", "to": "m"}"#)),
        ("presign", json("/v1/presign", r#"{"key": "k", "method": "GET", "expires_in_ms": 1000}"#)),
        ("clear", json("/v1/clear", r#"{"prefix": "m"}"#)),
        ("batch get", json("/v1/batch/get", r#"{"items": [{"key": "k"}]}"#)),
        ("batch delete", json("/v1/batch/delete", r#"{"items": [{"key": "m"}]}"#)),
        ("batch put", server.request("POST", "/v1/batch/put").header("content-type", frames).body("{\"end\":0}\n")),
        ("begin", server.request("POST", "/v1/transactions")),
        ("commit", server.request("POST", "/v1/transactions/AAAA/commit")),
        ("settle", server.request("POST", "/v1/writes/1")),
        ("health", read("/health")),
        ("metrics", read("/metrics")),
        ("openapi", read("/openapi.json")),
        ("no route", read("/nothing")),
        ("no method", server.request("PATCH", "/files/k")),
        ("no method of health", server.request("DELETE", "/health")),
        ("delete", server.request("DELETE", "/files/k")),
        ("delete all", server.request("DELETE", "/files")),
    ]
}

#[tokio::test]
async fn every_answer_says_what_caches_may_do() {
    let memory = || Storage::new(Memory::new());
    let server = start_uploads(memory(), memory(), Config::default(), 0).await;
    for (what, request) in of_every_kind(&server) {
        let answer = request.send().await.unwrap();
        let control = header(&answer, "cache-control").to_owned();
        let is_value = matches!(what, "get" | "get of v1" | "range" | "unchanged" | "head");
        let expected = if is_value { "no-cache, no-transform" } else { "no-store" };
        assert_eq!(control, expected, "{what}: {}", answer.status());
    }
    // With tokens no answer is for everybody, those included that turn somebody away.
    let file =
        TokenFile::new("[[token]]\nname = 'a'\nsecret = '0123456789abcdef'\nscopes = ['read', 'write', 'clear']");
    let mut config = file.config();
    config.cache = vec![CacheRule { prefix: "".into(), control: "public, s-maxage=60, max-age=60".into() }];
    let server = start_uploads(memory(), memory(), config, 0).await;
    for with in [true, false] {
        for (what, request) in of_every_kind(&server) {
            let request = if with { request.bearer_auth("0123456789abcdef") } else { request };
            let answer = request.send().await.unwrap();
            let control = header(&answer, "cache-control");
            assert!(control == "no-store" || control == "private, max-age=60, no-transform", "{what}: {control}");
            assert!(with || answer.status() == 401 || what.contains("health"), "{what}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn bytes_are_never_coded_and_etags_never_weak() {
    let server = start(Config::default()).await;
    let text = "water the plants ".repeat(1000);
    let page = PutOptions::new().metadata(Metadata::new().content_type("text/html"));
    server.storage.put_with("k", text.clone(), page).await.unwrap();
    for accepted in ["gzip", "br, gzip, deflate, zstd", "*", "identity;q=0, *"] {
        for path in ["/files/k", "/v1/objects/aw"] {
            let get = server.request("GET", path).header("accept-encoding", accepted).send().await.unwrap();
            assert_eq!(header(&get, "content-encoding"), "", "{accepted}");
            assert!(header(&get, "etag").starts_with('"'), "{accepted}");
            // Nothing is negotiated, so nothing but the token tells answers apart.
            assert_eq!(header(&get, "vary"), "authorization");
            assert_eq!(header(&get, "content-length"), text.len().to_string());
            assert_eq!(get.text().await.unwrap(), text);
        }
    }
    // One that a cache has weakened finds what has not changed, and never stands for bytes.
    let etag = header(&server.request("HEAD", "/files/k").send().await.unwrap(), "etag").to_owned();
    let weak = format!("W/{etag}");
    let ask =
        |name: &str, method: &str| server.request(method, "/files/k").header(name, &weak).header("range", "bytes=0-4");
    assert_eq!(ask("if-none-match", "GET").send().await.unwrap().status(), 304);
    assert_eq!(ask("if-match", "GET").send().await.unwrap().status(), 412);
    assert_eq!(ask("if-range", "GET").send().await.unwrap().status(), 200);
    assert_eq!(ask("if-match", "DELETE").send().await.unwrap().status(), 412);
    assert_eq!(ask("if-match", "PUT").body("v").send().await.unwrap().status(), 412);
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), text);
}

/// A cache cuts a range only out of what has a length, and compares parts by their etags.
#[tokio::test]
async fn every_value_has_its_length_and_every_part_the_etag_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    for storage in [Storage::new(Memory::new()), Storage::new(Fs::open(dir.path()).await.unwrap())] {
        let server = start_over(storage, Config::default(), 0).await;
        let pieces = (0..40_u8).map(|n| Ok::<_, storage_core::Error>(Bytes::from(vec![n; 25_000])));
        server.storage.put("large", Body::stream(futures_util::stream::iter(pieces))).await.unwrap();
        server.storage.put("empty", "").await.unwrap();
        let value = server.storage.get("large").await.unwrap().unwrap();
        let ask = |method: &str, key: &str| server.request(method, &format!("/files/{key}"));
        for (key, len) in [("large", "1000000"), ("empty", "0")] {
            for method in ["GET", "HEAD"] {
                let answer = ask(method, key).send().await.unwrap();
                assert_eq!(header(&answer, "content-length"), len, "{method} {key}");
                assert_eq!(header(&answer, "transfer-encoding"), "", "{method} {key}");
            }
        }
        let whole = ask("HEAD", "large").send().await.unwrap();
        for begin in [0, 30_000, 999_999] {
            let (end, range) = ((begin + 9_999).min(999_999), format!("bytes={begin}-{}", begin + 9_999));
            let part = ask("GET", "large").header("range", range).send().await.unwrap();
            assert_eq!(part.status(), 206);
            assert_eq!(header(&part, "content-range"), format!("bytes {begin}-{end}/1000000"));
            assert_eq!(header(&part, "etag"), header(&whole, "etag"));
            assert_eq!(part.bytes().await.unwrap(), value.slice(begin..=end));
        }
        // Several at once are the whole, never a part that says less than was asked for.
        let several = ask("GET", "large").header("range", "bytes=0-1,5-6").send().await.unwrap();
        assert_eq!((several.status().as_u16(), header(&several, "content-length")), (200, "1000000"));
        server.storage.put("large", "new").await.unwrap();
        let stale = ask("GET", "large").header("if-match", header(&whole, "etag")).header("range", "bytes=0-1");
        assert_eq!(stale.send().await.unwrap().status(), 412);
    }
}

#[tokio::test]
async fn the_version_stands_in_a_header_of_its_own() {
    let server = start(Config::default()).await;
    let put = async |value: &'static str| header(&server.put("/files/k", value).await, "storage-version").to_owned();
    let (first, second) = (put("1").await, put("2").await);
    assert!(!first.is_empty() && first != second);
    for method in ["GET", "HEAD"] {
        let now = server.request(method, "/files/k").send().await.unwrap();
        assert_eq!(header(&now, "storage-version"), second);
        let old = server.request(method, &format!("/files/k?version={first}")).send().await.unwrap();
        assert_eq!(header(&old, "storage-version"), first);
        assert_ne!(header(&old, "etag"), header(&now, "etag"));
    }
    let old = server.request("GET", &format!("/files/k?version={first}")).send().await.unwrap();
    assert_eq!(old.text().await.unwrap(), "1");
    let stat = server.request("GET", "/v1/versions/aw").send().await.unwrap().text().await.unwrap();
    assert!(stat.contains(&first) && stat.contains(&second), "{stat}");
}

/// A client that sets `Date`, or conditions on dates, decides nothing by it.
#[tokio::test]
async fn dates_of_clients_decide_nothing() {
    let server = start(Config::default()).await;
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let put = async |value: &'static str| {
        let put = server.request("PUT", "/files/k").header("date", date).header("last-modified", date).body(value);
        header(&put.send().await.unwrap(), "etag").to_owned()
    };
    let (first, second) = (put("1").await, put("2").await);
    assert!(first != second, "each write has an etag of its own");
    let head = server.request("HEAD", "/files/k").send().await.unwrap();
    assert!(!header(&head, "last-modified").contains("1994"), "{:?}", head.headers());
    for (name, method) in
        [("if-unmodified-since", "PUT"), ("if-modified-since", "PUT"), ("if-unmodified-since", "DELETE")]
    {
        let refused = server.request(method, "/files/k").header(name, date).body("3").send().await.unwrap();
        expect_problem(refused, 501, "unsupported").await;
    }
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "2");
}

/// What SDKs of S3 send by default, framed and with a checksum behind it: the frames must never become a value.
#[tokio::test]
async fn chunks_of_aws_are_refused() {
    let server = start(Config::default()).await;
    let body = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let put = || {
        let put = server.request("PUT", "/files/k").header("x-amz-trailer", "x-amz-checksum-crc32").body(body);
        put.header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            .header("x-amz-decoded-content-length", 5)
    };
    for coding in ["aws-chunked", "AWS-Chunked", "gzip,aws-chunked", "aws-chunked, gzip"] {
        expect_problem(put().header("content-encoding", coding).send().await.unwrap(), 415, "unsupported").await;
    }
    // Some leave the coding out.
    expect_problem(put().send().await.unwrap(), 415, "unsupported").await;
    // A path of a bucket is no key.
    expect_problem(server.request("PUT", "/bucket/key").body(body).send().await.unwrap(), 404, "not_found").await;
    assert_eq!(server.count().await, 0);
    // Etags are quoted, as they expect.
    let etag = header(&server.put("/files/k", "v").await, "etag").to_owned();
    assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
}

/// Clients of tus, the protocol that came before: none of what they send is taken for an upload, or for a value.
#[tokio::test]
async fn clients_of_tus_are_refused() {
    let memory = || Storage::new(Memory::new());
    let server = start_uploads(memory(), memory(), Config::default(), 0).await;
    let tus = |method: &str, path: &str| server.request(method, path).header("tus-resumable", "1.0.0");
    expect_problem(tus("POST", "/files").header("upload-length", 5).send().await.unwrap(), 405, "unsupported").await;
    let begun = server.request("PUT", "/files/k").header("upload-complete", "?0").send().await.unwrap();
    let path = begun.url().join(header(&begun, "location")).unwrap().path().to_owned();
    let append = |media: &str| {
        let patch = tus("PATCH", &path).header("upload-offset", 0).header("content-type", media).body("hello");
        patch.header("upload-complete", "?1")
    };
    for media in ["application/offset+octet-stream", "application/octet-stream", ""] {
        expect_problem(append(media).send().await.unwrap(), 415, "invalid_input").await;
    }
    let no_end = tus("PATCH", &path).header("upload-offset", 0).header("content-type", "application/partial-upload");
    expect_problem(no_end.body("hello").send().await.unwrap(), 400, "invalid_input").await;
    let head = server.request("HEAD", &path).send().await.unwrap();
    assert_eq!((header(&head, "upload-offset"), header(&head, "upload-complete")), ("0", "?0"));
    assert_eq!(server.count().await, 0);
}
