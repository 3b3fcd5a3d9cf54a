//! The six plain routes, as any client speaks them.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use storage_core::{Metadata, PutOptions};
use storage_server::{CacheRule, Config};
use support::{expect_problem, start};

#[tokio::test]
async fn values_are_written_read_described_listed_and_deleted() {
    let mut config = Config::default();
    config.allow_clear = true;
    let server = start(config).await;
    let put =
        server.request("PUT", "/files/notes%2Ftoday").header("content-type", "text/plain").body("water the plants");
    let put = put.send().await.unwrap();
    assert_eq!(put.status(), 200);
    let etag = put.headers()["etag"].clone();
    let get = server.request("GET", "/files/notes%2Ftoday").send().await.unwrap();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-length", "16"),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache, no-transform"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
        ("etag", etag.to_str().unwrap()),
    ] {
        assert_eq!(get.headers()[name], value, "{name}");
    }
    assert_eq!(get.text().await.unwrap(), "water the plants");
    let head = server.request("HEAD", "/files/notes%2Ftoday").send().await.unwrap();
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"16".parse().unwrap()));
    server.put("/files/a%20b", "v").await;
    let list = server.request("GET", "/files").send().await.unwrap();
    assert_eq!(list.headers()["cache-control"], "no-store");
    assert_eq!(list.text().await.unwrap(), r#"{"keys":["a b","notes/today"]}"#);
    for _ in 0..2 {
        assert_eq!(server.status("DELETE", "/files/a%20b").await, 204);
    }
    let absent = server.request("GET", "/files/a%20b").send().await.unwrap();
    assert_eq!(absent.headers()["storage-error"], "absent");
    expect_problem(absent, 404, "not_found").await;
    assert_eq!(server.status("HEAD", "/files/a%20b").await, 404);
    assert_eq!(server.status("DELETE", "/files").await, 204);
    assert_eq!(server.request("GET", "/files").send().await.unwrap().text().await.unwrap(), r#"{"keys":[]}"#);
}

#[tokio::test]
async fn a_range_is_one_of_http() {
    let server = start(Config::default()).await;
    server.put("/files/k", "0123456789").await;
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=8-99", 206, "bytes 8-9/10", "89"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
        // Not one range: the whole value, as RFC 9110 allows.
        ("bytes=0-1,3-4", 200, "", "0123456789"),
        ("lines=0-1", 200, "", "0123456789"),
        ("bytes=4-2", 200, "", "0123456789"),
    ] {
        let get = server.request("GET", "/files/k").header("range", range).send().await.unwrap();
        assert_eq!(get.status(), status, "{range}");
        let said = get.headers().get("content-range").map_or("", |said| said.to_str().unwrap()).to_owned();
        assert_eq!((said.as_str(), get.text().await.unwrap().as_str()), (content_range, body), "{range}");
    }
    for range in ["bytes=10-", "bytes=11-12"] {
        let get = server.request("GET", "/files/k").header("range", range).send().await.unwrap();
        expect_problem(get, 416, "range_not_satisfiable").await;
    }
    let etag = server.request("HEAD", "/files/k").send().await.unwrap().headers()["etag"].clone();
    for (if_range, status) in
        [(etag.to_str().unwrap(), 206), ("\"another\"", 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)]
    {
        let get = server.request("GET", "/files/k").header("range", "bytes=0-0").header("if-range", if_range);
        assert_eq!(get.send().await.unwrap().status(), status, "{if_range}");
    }
}

#[tokio::test]
async fn conditions_are_kept_or_refused() {
    let server = start(Config::default()).await;
    let put = |value: &'static str| server.request("PUT", "/files/k").body(value);
    assert_eq!(put("1").header("if-none-match", "*").send().await.unwrap().status(), 201);
    expect_problem(put("2").header("if-none-match", "*").send().await.unwrap(), 412, "already_exists").await;
    let etag = server.request("HEAD", "/files/k").send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned();
    expect_problem(put("2").header("if-match", "\"no\"").send().await.unwrap(), 412, "precondition_failed").await;
    let weak = put("2").header("if-match", format!("W/{etag}")).send().await.unwrap();
    expect_problem(weak, 412, "precondition_failed").await;
    // What this server cannot look at in one step with the write is refused.
    let both = format!("{etag}, \"another\"");
    for (name, value) in [
        ("if-match", "*"),
        ("if-match", both.as_str()),
        ("if-none-match", etag.as_str()),
        ("if-unmodified-since", "Sun, 06 Nov 2094 08:49:37 GMT"),
    ] {
        expect_problem(put("2").header(name, value).send().await.unwrap(), 501, "unsupported").await;
    }
    expect_problem(put("2").header("if-match", "k").send().await.unwrap(), 400, "invalid_input").await;
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "1");
    assert_eq!(put("2").header("if-match", &etag).send().await.unwrap().status(), 200);
    let now = server.request("HEAD", "/files/k").send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned();
    let get = |name: &'static str, value: String| server.request("GET", "/files/k").header(name, value).send();
    for (name, value, status) in [
        ("if-none-match", now.clone(), 304),
        ("if-none-match", format!("\"x\", W/{now}"), 304),
        ("if-none-match", "*".into(), 304),
        ("if-none-match", etag.clone(), 200),
        ("if-match", now.clone(), 200),
        ("if-match", format!("\"x\", {now}"), 200),
        ("if-match", "*".into(), 200),
        ("if-match", etag, 412),
        ("if-modified-since", "Sat, 06 Nov 2094 08:49:37 GMT".into(), 304),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT".into(), 200),
    ] {
        let answer = get(name, value.clone()).await.unwrap();
        assert_eq!(answer.status(), status, "{name}: {value}");
        if status == 304 {
            assert_eq!(answer.headers()["etag"], now.as_str());
            assert_eq!(answer.text().await.unwrap(), "");
        }
    }
    let stale = server.request("DELETE", "/files/k").header("if-match", "\"no\"").send().await.unwrap();
    expect_problem(stale, 412, "precondition_failed").await;
    assert_eq!(server.request("DELETE", "/files/k").header("if-match", now).send().await.unwrap().status(), 204);
}

#[tokio::test]
async fn metadata_travels_with_its_types() {
    let server = start(Config::default()).await;
    let metadata = Metadata::new().content_type("text/html").tag("ü").field("n", 1).field("x", 1.0).field("b", true);
    server.storage.put_with("k", "<p>", PutOptions::new().metadata(metadata.clone())).await.unwrap();
    let get = server.request("GET", "/files/k").send().await.unwrap();
    let header = get.headers()["storage-metadata"].clone();
    assert_eq!(get.headers()["content-type"], "text/html");
    server.request("PUT", "/files/copy").header("storage-metadata", header).body("<p>").send().await.unwrap();
    let kept = server.storage.stat("copy").await.unwrap().unwrap().metadata.unwrap();
    assert_eq!(*kept, metadata);
    // A content type that no header can have is kept, and not sent.
    let odd = PutOptions::new().metadata(Metadata::new().content_type("a\r\nset-cookie: x"));
    server.storage.put_with("odd", "v", odd).await.unwrap();
    let get = server.request("GET", "/files/odd").send().await.unwrap();
    assert_eq!(get.headers()["content-type"], "application/octet-stream");
    assert!(get.headers().get("set-cookie").is_none());
}

#[tokio::test]
async fn digests_are_checked() {
    let server = start(Config::default()).await;
    let put = |digest: &'static str| server.request("PUT", "/files/k").header("content-digest", digest).body("hello");
    let right = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    let other = "sha-256=:AAAAul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    expect_problem(put(other).send().await.unwrap(), 400, "invalid_input").await;
    expect_problem(put("sha-256=hello").send().await.unwrap(), 400, "invalid_input").await;
    assert_eq!(server.count().await, 0);
    // Broken algorithms are no proof of anything, and so are not looked at.
    for digest in [right, "md5=:AAAA:, sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"] {
        assert_eq!(put(digest).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn caches_are_told_by_prefix_what_they_may_do() {
    let mut config = Config::default();
    config.cache = vec![CacheRule { prefix: "public/".into(), control: "public, max-age=1".into() }];
    let server = start(config.clone()).await;
    server.put("/files/public%2Fk", "v").await;
    let get = server.request("GET", "/files/public%2Fk").send().await.unwrap();
    assert_eq!(get.headers()["cache-control"], "public, max-age=1, no-transform");
    // A proxy may not look at the token, so nothing that needs one is shared.
    let tokens = support::TokenFile::new(
        "[[token]]\nname = 'a'\nsecret = '0123456789abcdef'\nscopes = ['read', 'write']\nprefix = ''",
    );
    config.tokens = Some(tokens.0.clone());
    let server = start(config).await;
    let authorised = |method: &str| server.request(method, "/files/public%2Fk").bearer_auth("0123456789abcdef");
    authorised("PUT").body("v").send().await.unwrap();
    let get = authorised("GET").send().await.unwrap();
    assert_eq!(get.headers()["cache-control"], "private, max-age=1, no-transform");
    assert_eq!(get.headers()["vary"], "authorization");
}
