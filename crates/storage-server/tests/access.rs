//! Who may do what: with tokens, and without.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use reqwest::Response;
use storage_core::ErrorKind;
use storage_server::{Config, Server};
use support::{Running, TokenFile, expect_problem, start};

const TOKENS: &str = "
[[token]]
name = 'all'
secret = 'all-0123456789abcdef'
scopes = ['read', 'write', 'clear']

[[token]]
name = 'reader'
secret = 'reader-0123456789abcdef'
scopes = ['read']

[[token]]
name = 'team'
secret = 'team-0123456789abcdef'
scopes = ['read', 'write', 'clear']
prefix = 'team/'

[[token]]
name = 'writer'
# printf %s writer-0123456789abcdef | sha256sum
sha256 = 'feb10ad87281934dcaf9fc17d29a365ae7b36b1596b34e2a1fff6f02a66b65dc'
scopes = ['write']

[[token]]
name = 'old'
secret = 'old-0123456789abcdef'
scopes = ['read']
expires = '2020-01-01T00:00:00Z'
";

async fn send(server: &Running, who: &str, method: &str, path: &str) -> Response {
    let request = server.request(method, path).bearer_auth(format!("{who}-0123456789abcdef"));
    let request = if method == "PUT" { request.body("v") } else { request };
    request.send().await.unwrap()
}

async fn post(server: &Running, who: &str, path: &str, json: &'static str) -> Response {
    let request = server.request("POST", path).bearer_auth(format!("{who}-0123456789abcdef"));
    request.header("content-type", "application/json").body(json).send().await.unwrap()
}

#[tokio::test]
async fn a_token_may_do_what_its_scopes_and_its_prefix_allow() {
    let file = TokenFile::new(TOKENS);
    let server = start(file.config()).await;
    for key in ["a", "team/a", "team/b", "teamwork"] {
        server.storage.put(key, "v").await.unwrap();
    }
    for (who, method, path, status) in [
        ("reader", "GET", "/files/a", 200),
        ("reader", "PUT", "/files/a", 403),
        ("reader", "DELETE", "/files/a", 403),
        ("reader", "DELETE", "/files", 403),
        ("team", "GET", "/files/team%2Fa", 200),
        ("team", "GET", "/files/a", 403),
        ("team", "HEAD", "/files/teamwork", 403),
        ("team", "PUT", "/files/a", 403),
        ("team", "PUT", "/files/team%2Fc", 200),
        ("team", "GET", "/v1/list", 403),
        ("team", "GET", "/v1/list?prefix=tea", 403),
        ("team", "GET", "/v1/list?prefix=team%2Fa", 200),
        ("team", "GET", "/v1/entries/dGVhbXdvcms", 403),
        ("writer", "PUT", "/files/a", 200),
        ("writer", "GET", "/files/a", 403),
        ("old", "GET", "/files/a", 401),
        ("forged", "GET", "/files/a", 401),
    ] {
        assert_eq!(send(&server, who, method, path).await.status(), status, "{who} {method} {path}");
    }
    for (path, json) in [
        ("/v1/copy", r#"{"from": "a", "to": "team/x"}"#),
        ("/v1/copy", r#"{"from": "team/a", "to": "x"}"#),
        ("/v1/rename", r#"{"from": "teamwork", "to": "team/x"}"#),
        ("/v1/query", r#"{"prefix": ""}"#),
        ("/v1/clear", r#"{"prefix": "team"}"#),
        ("/v1/batch/get", r#"{"items": [{"key": "team/a"}, {"key": "a"}]}"#),
        ("/v1/batch/delete", r#"{"items": [{"key": "team/a"}, {"key": "a"}]}"#),
    ] {
        expect_problem(post(&server, "team", path, json).await, 403, "permission_denied").await;
    }
    assert_eq!(
        send(&server, "team", "GET", "/files").await.text().await.unwrap(),
        r#"{"keys":["team/a","team/b","team/c"]}"#
    );
    // Everything is what the token can see.
    assert_eq!(send(&server, "team", "DELETE", "/files").await.status(), 204);
    assert_eq!(send(&server, "reader", "GET", "/files").await.text().await.unwrap(), r#"{"keys":["a","teamwork"]}"#);
    let none = server.request("GET", "/files/a").send().await.unwrap();
    assert_eq!(none.headers()["www-authenticate"], "Bearer");
    expect_problem(none, 401, "unauthenticated").await;
    let basic = server.request("GET", "/files/a").basic_auth("all", Some("0123456789abcdef")).send().await.unwrap();
    expect_problem(basic, 401, "unauthenticated").await;
    assert_eq!(server.status("GET", "/health").await, 200);
    for hidden in ["/v1", "/openapi.json", "/metrics", "/nothing"] {
        assert_eq!(server.status("GET", hidden).await, 401, "{hidden}");
    }
}

#[tokio::test]
async fn the_file_is_read_again_when_it_changes() {
    let file = TokenFile::new(TOKENS);
    let server = start(file.config()).await;
    assert_eq!(send(&server, "reader", "GET", "/files").await.status(), 200);
    std::fs::write(&file.0, "[[token]]\nname = 'new'\nsecret = 'new-0123456789abcdef'\nscopes = ['read']").unwrap();
    let mut left = 100;
    while send(&server, "new", "GET", "/files").await.status() != 200 {
        left -= 1;
        assert!(left > 0, "expected the new token to be known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(send(&server, "reader", "GET", "/files").await.status(), 401);
    // One that makes no sense changes nothing.
    std::fs::write(&file.0, "[[token]]\nname = 'broken'").unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(send(&server, "new", "GET", "/files").await.status(), 200);
}

#[tokio::test]
async fn without_tokens_only_programs_here_are_served_and_nobody_clears() {
    let server = start(Config::default()).await;
    let port = server.address.port();
    let asks = |head: String| {
        let server = &server;
        async move { server.raw(format!("{head}connection: close\r\n\r\n").as_bytes()).await }
    };
    for host in [format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let answer = asks(format!("GET /files HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // A name of somebody else's that was made to lead here.
    for host in [
        format!("evil.example:{port}"),
        "localhost".into(),
        "127.0.0.1:1".into(),
        format!("localhost.evil.example:{port}"),
    ] {
        let answer = asks(format!("GET /files HTTP/1.1\r\nhost: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    }
    for origin in ["http://evil.example", "null", "https://localhost:1", "http://localhost"] {
        let answer = asks(format!(
            "PUT /files/k HTTP/1.1\r\nhost: localhost:{port}\r\norigin: {origin}\r\ncontent-length: 0\r\n"
        ))
        .await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let health = asks(format!("GET /health HTTP/1.1\r\nhost: localhost:{port}\r\norigin: {origin}\r\n")).await;
        assert!(health.starts_with("HTTP/1.1 403"), "{health}");
    }
    server.put("/files/k", "v").await;
    let clear = server.request("DELETE", "/files").send().await.unwrap();
    assert!(expect_problem(clear, 403, "permission_denied").await.contains("--allow-clear"));
    assert_eq!(server.count().await, 1);
}

#[tokio::test]
async fn without_tokens_no_address_is_taken_that_others_can_reach() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let mut config = Config::default();
        config.listen = address.into();
        let server = Server::new(storage_core::Storage::new(storage_memory::Memory::new()), config).unwrap();
        let e = server.bind().await.unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("`tokens`"), "{e:?}");
    }
}
