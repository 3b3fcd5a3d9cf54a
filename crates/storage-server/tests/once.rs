//! Writes happen once; transactions end by themselves; the server ends in good order.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use reqwest::Response;
use storage_core::Storage;
use storage_memory::Memory;
use storage_server::Config;
use support::{Running, TokenFile, expect_problem, start, start_over};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The run of the server, and a time on its clock.
async fn run(server: &Running) -> (String, u64) {
    let text = server.request("GET", "/v1").send().await.unwrap().text().await.unwrap();
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    (about["boot"].as_str().unwrap().into(), about["uptime_ms"].as_u64().unwrap())
}

async fn put(server: &Running, id: &str, value: &'static str) -> Response {
    server.request("PUT", "/files/k").header("storage-write-id", id).body(value).send().await.unwrap()
}

async fn settle(server: &Running, id: &str) -> String {
    let answer = server.request("POST", &format!("/v1/writes/{id}")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

#[tokio::test]
async fn a_repeated_write_is_answered_and_not_done_again() {
    let server = start(Config::default()).await;
    let (boot, now) = run(&server).await;
    let id = format!("{boot}.{now}.0123456789abcdef");
    let first = put(&server, &id, "1").await.text().await.unwrap();
    server.storage.put("k", "of another").await.unwrap();
    assert_eq!(put(&server, &id, "1").await.text().await.unwrap(), first);
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "of another");
    assert!(settle(&server, &id).await.contains("\"done\":true"));
    // A refusal is an outcome, too.
    let id = format!("{boot}.{now}.0123456789abcdeg");
    let create =
        || server.request("PUT", "/files/k").header("storage-write-id", &id).header("if-none-match", "*").body("2");
    assert_eq!(create().send().await.unwrap().status(), 412);
    server.storage.delete("k").await.unwrap();
    assert_eq!(create().send().await.unwrap().status(), 412);
    // An id is of one request.
    let other = server.request("PUT", "/files/other").header("storage-write-id", &id).body("2").send().await.unwrap();
    expect_problem(other, 400, "invalid_input").await;
    let future = format!("{boot}.{}.0123456789abcdeh", now + 3_600_000);
    expect_problem(put(&server, &future, "3").await, 400, "invalid_input").await;
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn a_write_that_was_settled_before_it_arrived_is_never_done() {
    let server = start(Config::default()).await;
    let (boot, now) = run(&server).await;
    let id = format!("{boot}.{now}.0123456789abcdef");
    assert!(settle(&server, &id).await.contains("\"done\":false"));
    let late = expect_problem(put(&server, &id, "late").await, 409, "conflict").await;
    assert!(late.contains("stale_write_id") && late.contains("\"ambiguous\":true"), "{late}");
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn after_a_restart_no_id_of_before_is_applied() {
    let storage = Storage::new(Memory::new());
    let mut server = start_over(storage.clone(), Config::default(), 0).await;
    let (boot, now) = run(&server).await;
    let id = format!("{boot}.{now}.0123456789abcdef");
    assert_eq!(put(&server, &id, "1").await.status(), 200);
    server.end();
    let port = server.address.port();
    server.ended.await.unwrap();
    let server = start_over(storage, Config::default(), port).await;
    server.storage.put("k", "of another").await.unwrap();
    let repeat = expect_problem(put(&server, &id, "1").await, 409, "conflict").await;
    assert!(repeat.contains("stale_write_id") && repeat.contains("\"ambiguous\":true"), "{repeat}");
    let settled = server.request("POST", &format!("/v1/writes/{id}")).send().await.unwrap();
    assert!(expect_problem(settled, 409, "conflict").await.contains("stale_write_id"));
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "of another");
}

#[tokio::test]
async fn a_write_whose_client_has_gone_is_finished_and_known() {
    let server = start(Config::default()).await;
    let (boot, now) = run(&server).await;
    let id = format!("{boot}.{now}.0123456789abcdef");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "PUT /files/k HTTP/1.1\r\nhost: {}\r\nstorage-write-id: {id}\r\ncontent-length: 1\r\n\r\nv",
        server.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let settled = settle(&server, &id).await;
    // Whichever was first, the server says what is so.
    assert_eq!(settled.contains("\"done\":true"), server.storage.exists("k").await.unwrap());
    // Of a body that broke off nothing was done.
    let id = format!("{boot}.{now}.0123456789abcdeg");
    let request = request.replace("0123456789abcdef", "0123456789abcdeg").replace("length: 1", "length: 100000");
    server.raw_and_close(request.as_bytes()).await;
    assert!(settle(&server, &id).await.contains("\"done\":false"));
}

async fn begin(server: &Running) -> String {
    let begun = server.request("POST", "/v1/transactions").send().await.unwrap();
    assert_eq!(begun.status(), 201);
    let begun: serde_json::Value = serde_json::from_str(&begun.text().await.unwrap()).unwrap();
    begun["id"].as_str().unwrap().into()
}

#[tokio::test]
async fn an_abandoned_transaction_ends_by_itself() {
    let mut config = Config::default();
    config.lease = Duration::from_millis(400);
    let server = start(config).await;
    let id = begin(&server).await;
    let inside = |method: &str, path: &str| server.request(method, path).header("storage-transaction", &id);
    // Each request of it counts.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(inside("PUT", "/files/k").body("v").send().await.unwrap().status(), 200);
    }
    assert_eq!(server.status("GET", "/files/k").await, 404);
    assert_eq!(inside("GET", "/files/k").send().await.unwrap().status(), 200);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let late = inside("PUT", "/files/k").body("v").send().await.unwrap();
    assert!(expect_problem(late, 410, "closed").await.contains("transaction_ended"));
    let commit = server.request("POST", &format!("/v1/transactions/{id}/commit")).send().await.unwrap();
    expect_problem(commit, 410, "closed").await;
    assert_eq!(server.count().await, 0);
}

#[tokio::test]
async fn a_transaction_belongs_to_its_token_and_there_are_not_too_many() {
    let file = TokenFile::new(
        "[[token]]\nname = 'a'\nsecret = 'a-0123456789abcdef'\nscopes = ['read', 'write']\n\
         [[token]]\nname = 'b'\nsecret = 'b-0123456789abcdef'\nscopes = ['read', 'write']",
    );
    let mut config = file.config();
    config.max_transactions = 1;
    let server = start(config).await;
    let begin = async |who: &str| {
        server.request("POST", "/v1/transactions").bearer_auth(format!("{who}-0123456789abcdef")).send().await.unwrap()
    };
    let begun: serde_json::Value = serde_json::from_str(&begin("a").await.text().await.unwrap()).unwrap();
    let id = begun["id"].as_str().unwrap();
    expect_problem(begin("a").await, 429, "rate_limited").await;
    let commit = |who: &str| {
        server
            .request("POST", &format!("/v1/transactions/{id}/commit"))
            .bearer_auth(format!("{who}-0123456789abcdef"))
            .send()
    };
    expect_problem(commit("b").await.unwrap(), 410, "closed").await;
    assert_eq!(commit("a").await.unwrap().status(), 204);
    assert_eq!(begin("a").await.status(), 201);
}

#[tokio::test]
async fn the_server_ends_when_what_is_under_way_is_done() {
    let mut server = start(Config::default()).await;
    let open = begin(&server).await;
    let inside = server.request("PUT", "/files/open").header("storage-transaction", open).body("v");
    assert_eq!(inside.send().await.unwrap().status(), 200);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!("PUT /files/k HTTP/1.1\r\nhost: {}\r\ncontent-length: 4\r\n\r\nha", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connections are taken");
    stream.write_all(b"lf").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tokio::time::timeout(Duration::from_secs(5), server.ended).await.unwrap().unwrap();
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "half");
    assert!(!server.storage.exists("open").await.unwrap(), "an open transaction is rolled back");
}
