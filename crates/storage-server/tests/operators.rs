//! What operators see: a log without secrets, and how many requests are under way.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/program.rs"]
mod program;

use std::{
    fs::{self, File},
    io::Write,
    net::TcpStream,
    time::Duration,
};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use program::{Program, command};

const SECRET: &str = "hunter2-0123456789abcdef";
/// What somebody sends who takes another program's secret for ours.
const OTHER: &str = "swordfish-fedcba9876543210";

#[test]
fn no_secret_is_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, log) = (dir.path().join("tokens.toml"), dir.path().join("log"));
    fs::write(&tokens, format!("[[token]]\nname = 'ci'\nsecret = '{SECRET}'\nscopes = ['read', 'write']")).unwrap();
    // Everything that anything has to say.
    let mut command = command(&["memory:", "--uploads", "memory:", "--listen", "127.0.0.1:0", "--log", "trace"]);
    let mut program = Program::start_logged(command.arg("--tokens").arg(&tokens), File::create(&log).unwrap().into());
    let bearer = format!("authorization: Bearer {SECRET}\r\n");
    let (basic, metadata) = (BASE64.encode(format!("u:{SECRET}").as_bytes()), format!("{{\"tags\":[\"{OTHER}\"]}}"));
    let metadata = BASE64URL_NOPAD.encode(metadata.as_bytes());
    let absolute = format!("http://u:{OTHER}@{}/files/seen", program.address);
    let asked = [
        ("PUT", "/files/seen".to_owned(), bearer.clone(), 200),
        ("PUT", "/files/seen".into(), format!("{bearer}storage-metadata: {metadata}\r\ncookie: s={OTHER}\r\n"), 200),
        ("GET", absolute, bearer.clone(), 200),
        // In parameters, which are unknown, or of use.
        ("GET", format!("/files/seen?token={SECRET}"), bearer.clone(), 400),
        ("GET", format!("/files/seen?access_token={OTHER}"), String::new(), 401),
        ("GET", format!("/v1/list?prefix={OTHER}"), bearer.clone(), 200),
        // In paths: of a value, of something that has an id, and of nothing.
        ("GET", format!("/files/{SECRET}"), bearer.clone(), 404),
        ("GET", format!("/files/a%2F{SECRET}%2Fb"), bearer.clone(), 404),
        ("GET", format!("/files/{OTHER}"), String::new(), 401),
        ("GET", format!("/files/{OTHER}"), format!("authorization: Bearer {OTHER}\r\n"), 401),
        ("HEAD", format!("/v1/uploads/{OTHER}"), bearer.clone(), 404),
        ("DELETE", format!("/v1/transactions/{OTHER}"), bearer.clone(), 410),
        ("POST", format!("/v1/transactions/{OTHER}/commit"), bearer.clone(), 410),
        ("POST", format!("/v1/writes/{OTHER}"), bearer.clone(), 400),
        ("GET", format!("/hooks/{OTHER}"), bearer.clone(), 404),
        ("GET", format!("/files/a/{OTHER}"), bearer.clone(), 400),
        // In headers of other kinds.
        ("GET", "/files".into(), format!("authorization: Basic {basic}\r\n"), 401),
        ("GET", "/files".into(), format!("authorization: {SECRET}\r\n"), 401),
        ("GET", "/files".into(), format!("x-api-key: {OTHER}\r\nproxy-authorization: Bearer {OTHER}\r\n"), 401),
        ("GET", "/files".into(), format!("{bearer}storage-unknown: {OTHER}\r\n"), 400),
        ("PUT", "/files/k".into(), format!("{bearer}storage-transaction: {OTHER}\r\n"), 410),
        ("PUT", "/files/k".into(), format!("{bearer}storage-write-id: {OTHER}\r\n"), 400),
    ];
    for (method, path, headers, status) in &asked {
        assert_eq!(program.ask_with(method, path, headers, "").0, *status, "{method} {path} {headers}");
    }
    program.signal("-TERM");
    assert!(program.child.wait().unwrap().success());
    let log = fs::read_to_string(log).unwrap();
    let access: Vec<_> = log.lines().filter(|line| line.contains("storage_server::access")).collect();
    assert_eq!(access.len(), asked.len(), "{log}");
    for secret in [SECRET, OTHER, &basic, &metadata] {
        let shown = log.lines().find(|line| line.contains(secret));
        assert!(shown.is_none(), "{shown:?}");
    }
    // What is no secret is there.
    for part in ["who=\"ci\"", "path=\"/files/seen\"", "path=\"/v1/uploads/{id}\"", "status=401", "error=\"closed\""] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

/// How many requests are under way beside the one that asks.
fn under_way(program: &Program) -> u32 {
    let metrics = program.ask("GET", "/metrics", "").1;
    let line = metrics.lines().find_map(|line| line.strip_prefix("storage_server_requests_in_flight "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse::<u32>().unwrap() - 1
}

fn expect_under_way(program: &Program, expected: u32) {
    let mut left = 200;
    while under_way(program) != expected {
        left -= 1;
        assert!(left > 0, "{} requests are under way, and not {expected}", under_way(program));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_request_whose_client_has_gone_is_not_under_way() {
    let program = Program::start(&mut command(&["memory:", "--listen", "127.0.0.1:0"]));
    expect_under_way(&program, 0);
    let begin = |head: &str, body: &str| {
        let mut stream = TcpStream::connect(&program.address).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nhost: {}\r\n{body}", program.address).unwrap();
        stream
    };
    // Values of known and of unknown length, small and large, and a request that is no value.
    let slow = [
        begin("PUT /files/a", "content-length: 10\r\n\r\nv"),
        begin("PUT /files/a", "content-length: 1000000\r\n\r\nv"),
        begin("PUT /files/a", "transfer-encoding: chunked\r\n\r\n1\r\nv\r\n"),
        begin("POST /v1/query", "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"),
    ];
    expect_under_way(&program, 4);
    drop(slow);
    expect_under_way(&program, 0);
    // One that is refused is under way no longer, though its body is not through.
    let _refused = begin("PUT /files/a", "content-encoding: gzip\r\ncontent-length: 10\r\n\r\nv");
    expect_under_way(&program, 0);
    assert!(program.ask("GET", "/files", "").1.contains("{\"keys\":[]}"));
}
