//! What lies between: lost answers, servers that start anew, proxies that change what they pass on.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::stream;
use storage_config::Secret;
use storage_conformance::proxy::{Fault, Mode, Proxy};
use storage_core::{Body, Bytes, ErrorKind, GetOptions, PutOptions, Storage};
use storage_memory::Memory;
use storage_rest::{Api, Config, Rest};
use support::{Foreign, Running, TOKEN};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

async fn serve(storage: &Storage, port: u16) -> Running {
    Running::start(storage.clone(), port).await
}

async fn connect(address: &str) -> Storage {
    let mut config = Config::new(format!("http://{address}"));
    config.token = Some(Secret::new(TOKEN));
    config.timeout = Duration::from_secs(5);
    Storage::new(Rest::connect(config).await.unwrap())
}

/// A server, a proxy before it, and a client through that.
async fn behind_a_proxy() -> (Storage, Running, Proxy, Storage) {
    let below = Storage::new(Memory::new());
    let server = serve(&below, 0).await;
    let proxy = Proxy::start(&server.address.to_string()).unwrap();
    let storage = connect(&proxy.address()).await;
    (below, server, proxy, storage)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_settled_and_the_write_is_done_once() {
    let (below, _server, proxy, storage) = behind_a_proxy().await;
    for fault in [Fault::Reset(0), Fault::Reset(20), Fault::Truncate(20)] {
        let _ = below.delete("k").await;
        proxy.spoil(0, 1, fault.clone());
        // Done again, it would find its own value.
        storage.put_with("k", "1", PutOptions::new().if_absent()).await.unwrap();
        assert!(proxy.forget(), "{fault:?}");
        // A stream that nobody can send again is settled, too.
        proxy.spoil(0, 1, fault.clone());
        let pieces = ["a".repeat(300_000), "b".into()].map(|piece| Ok(Bytes::from(piece)));
        storage.put("k", Body::stream(stream::iter(pieces))).await.unwrap();
        assert!(proxy.forget(), "{fault:?}");
        assert_eq!(below.get("k").await.unwrap().unwrap().len(), 300_001, "{fault:?}");
    }
    // A proxy that answers in the server's place, and does nothing.
    proxy.spoil(0, 1, Fault::answer("502 Bad Gateway", "", "<html>"));
    storage.put("k", "2").await.unwrap();
    assert_eq!(below.get("k").await.unwrap().unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_server_is_gone_is_ambiguous() {
    let (below, _server, proxy, storage) = behind_a_proxy().await;
    let before = proxy.requests();
    proxy.spoil(0, 1, Fault::Reset(0));
    let cut = async {
        // The answer is lost, and from then on nothing goes through.
        while below.stat("k").await.unwrap().is_none() || proxy.requests() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.set(Mode::Cut);
    };
    let (written, ()) = tokio::join!(storage.put("k", "1"), cut);
    match written {
        // It was settled before the cut.
        Ok(_) => {}
        Err(e) => assert!(e.is_ambiguous() && e.is_retryable(), "{e:?}"),
    }
    let e = storage.put("k", "2").await.unwrap_err();
    assert!(e.is_retryable(), "{e:?}");
    proxy.set(Mode::Pass);
    storage.put("k", "3").await.unwrap();
}

/// Counters through a proxy that loses answers, over servers that start anew: `update` looks at the etag, and no step is lost or done twice.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_lost_answer_is_resolved_by_its_etag() {
    let (below, mut server, proxy, storage) = behind_a_proxy().await;
    storage.put("k", "0").await.unwrap();
    let (mut expected, mut unknown) = (0, 0);
    for round in 0..12 {
        if round % 3 == 2 {
            let port = server.address.port();
            server.stop().await;
            server = serve(&below, port).await;
        }
        if round % 2 == 0 {
            proxy.spoil(1, 1, Fault::Reset(0));
        }
        let step = storage.update("k", |old| {
            let n: u32 = old.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap_or(0));
            Ok::<_, storage_core::Error>((n + 1).to_string())
        });
        let done = step.await;
        proxy.forget();
        let now: u32 = String::from_utf8_lossy(&below.get("k").await.unwrap().unwrap()).parse().unwrap();
        match done {
            Ok(_) => expected += 1,
            Err(e) if e.is_ambiguous() => {
                unknown += 1;
                expected = now;
            }
            // Nothing was done.
            Err(e) => assert!(e.is_retryable(), "{e:?}"),
        }
        assert_eq!(now, expected, "round {round}");
    }
    assert!(unknown < 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_anew_gets_fresh_write_ids() {
    let (below, server, _proxy, storage) = behind_a_proxy().await;
    storage.put("k", "1").await.unwrap();
    let port = server.address.port();
    server.stop().await;
    let _server = serve(&below, port).await;
    for n in 0..5 {
        // A connection of before may be found broken when the write is on it already, and the new server knows nothing of that.
        while let Err(e) = storage.put("k", n.to_string()).await {
            assert!(n == 0 && e.is_retryable() && e.is_ambiguous(), "{n}: {e:?}");
        }
    }
    assert_eq!(below.get("k").await.unwrap().unwrap(), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeating_proxy_writes_once() {
    let below = Storage::new(Memory::new());
    let server = serve(&below, 0).await;
    let address = repeating(server.address.to_string()).await;
    let storage = connect(&address).await;
    for n in 0..20 {
        let entry = storage.put_with(format!("k{n}"), "v", PutOptions::new().if_absent()).await.unwrap();
        assert_eq!(below.stat(format!("k{n}")).await.unwrap().unwrap().etag, entry.etag);
        storage.put("same", n.to_string()).await.unwrap();
    }
    // Each write made one version, however often it arrived.
    let versions: Vec<_> =
        futures_util::TryStreamExt::try_collect(below.versions("same").await.unwrap()).await.unwrap();
    assert_eq!(versions.len(), 10);
    assert_eq!(below.get("same").await.unwrap().unwrap(), "19");
    let times: Vec<_> = versions.iter().map(|entry| entry.etag.clone()).collect();
    assert_eq!(times.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
}

/// A proxy that sends each request with a body twice, on two connections, and passes on the second answer.
async fn repeating(server: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let (mut request, mut piece) = (Vec::new(), vec![0; 64 << 10]);
                loop {
                    let n = client.read(&mut piece).await.unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    request.extend_from_slice(&piece[..n]);
                    if !is_whole(&request) {
                        continue;
                    }
                    let text =
                        String::from_utf8_lossy(&request).replacen("\r\n\r\n", "\r\nconnection: close\r\n\r\n", 1);
                    let mut answer = Vec::new();
                    for _ in 0..2 {
                        let mut upstream = tokio::net::TcpStream::connect(&server).await.unwrap();
                        upstream.write_all(text.as_bytes()).await.unwrap();
                        answer.clear();
                        upstream.read_to_end(&mut answer).await.unwrap();
                    }
                    let _ = client.write_all(&answer).await;
                    return;
                }
            });
        }
    });
    address
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    body.len() >= length.unwrap_or(0)
}

/// A server that answers every request after the first with this, and counts them.
async fn answering(first: String, then: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (first, then, counted) = (first.clone(), then.clone(), counted.clone());
            tokio::spawn(async move {
                let (mut request, mut piece) = (Vec::new(), vec![0; 64 << 10]);
                while !is_whole(&request) {
                    match client.read(&mut piece).await {
                        Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                let answer = if counted.fetch_add(1, Ordering::SeqCst) == 0 { first } else { then };
                let _ = client.write_all(answer.as_bytes()).await;
            });
        }
    });
    (address, count)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// What stands between may strip conditions, answer another range, weaken etags, redirect, or be a page: none of it is taken for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_would_not_say_is_no_answer() {
    let about = r#"{"protocol": 1, "boot": "b", "uptime_ms": 0, "access": {"read": true, "write": true}, "store": {"id": "x", "name": "X",
        "version": "1", "capabilities": {"conditional": true}, "consistency": "shared", "isolation": "snapshot",
        "limits": {"key": 1024, "value": 1000000, "metadata": 1000, "time_granularity_ns": 1}}}"#;
    let first = answer("200 OK", "content-type: application/json\r\n", about);
    // `{"size":3,"etag":"1"}`
    let entry = "storage-entry: eyJzaXplIjozLCJldGFnIjoiMSJ9\r\netag: \"1\"\r\n";
    for (options, then, kind) in [
        (GetOptions::new(), answer("404 Not Found", "", "<html>"), ErrorKind::NotFound),
        (GetOptions::new(), answer("200 OK", "", "<html>a login page</html>"), ErrorKind::Unavailable),
        (GetOptions::new(), answer("302 Found", "location: http://127.0.0.1:1/\r\n", ""), ErrorKind::Other),
        (GetOptions::new(), answer("200 OK", entry, "abcd"), ErrorKind::Unavailable),
        (GetOptions::new().range(0..2), answer("206 Partial Content", entry, "ab"), ErrorKind::Unavailable),
        (
            GetOptions::new().range(0..2),
            answer("206 Partial Content", &format!("{entry}content-range: bytes 1-2/3\r\n"), "bc"),
            ErrorKind::Unavailable,
        ),
        (
            GetOptions::new().if_match(storage_core::Etag::new("2")),
            answer("200 OK", entry, "abc"),
            ErrorKind::PreconditionFailed,
        ),
        (
            GetOptions::new().if_none_match(storage_core::Etag::new("1")),
            answer("200 OK", entry, "abc"),
            ErrorKind::NotModified,
        ),
        (GetOptions::new(), answer("503 Service Unavailable", "retry-after: 7\r\n", ""), ErrorKind::Unavailable),
        (GetOptions::new(), answer("429 Too Many Requests", "retry-after: 7\r\n", ""), ErrorKind::RateLimited),
    ] {
        let (address, _) = answering(first.clone(), then.clone()).await;
        let storage = connect(&address).await;
        let e = storage.open("k", options).await.map(drop).unwrap_err();
        assert_eq!(e.kind(), kind, "{then}: {e:?}");
        if then.contains("retry-after") {
            assert_eq!(e.retry_after(), Some(Duration::from_secs(7)));
        }
    }
    // A server that left the range out has the value all the same.
    let (address, _) = answering(first.clone(), answer("200 OK", entry, "abc")).await;
    let read = connect(&address).await.get_with("k", GetOptions::new().range(1..3)).await.unwrap().unwrap();
    assert_eq!(read, "bc");
    // A listing without its last line was cut off.
    let (address, _) =
        answering(first.clone(), answer("200 OK", "", "{\"entry\": {\"key\": \"k\", \"size\": 1}}\n")).await;
    let listed: Result<Vec<_>, _> =
        futures_util::TryStreamExt::try_collect(connect(&address).await.list("").await.unwrap()).await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::Unavailable);
    // A page in place of the answer to a write leaves it ambiguous.
    let (address, _) = answering(first, answer("200 OK", "", "<html>")).await;
    let e = connect(&address).await.put("k", "v").await.unwrap_err();
    assert!(e.is_ambiguous(), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_server_of_ours_is_told_on_connect() {
    let connect = async |first: String, api: Api| {
        let (address, _) = answering(first.clone(), first).await;
        let mut config = Config::new(format!("http://{address}"));
        config.api = api;
        Rest::connect(config).await
    };
    let page = answer("200 OK", "", "<html>");
    assert_eq!(connect(page, Api::Auto).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let none = answer("404 Not Found", "", "");
    assert_eq!(connect(none.clone(), Api::V1).await.unwrap_err().kind(), ErrorKind::Config);
    assert!(connect(none, Api::Auto).await.unwrap().info_is_basic());
    let newer = answer(
        "200 OK",
        "",
        r#"{"protocol": 2, "boot": "b", "uptime_ms": 0, "access": {}, "store": {"id": "x", "name": "X",
        "version": "1", "capabilities": {}, "consistency": "shared", "isolation": "snapshot",
        "limits": {"key": 1024, "value": 1, "metadata": 1000, "time_granularity_ns": 1}}}"#,
    );
    assert_eq!(connect(newer, Api::Auto).await.unwrap_err().kind(), ErrorKind::Config);
    let server = serve(&Storage::new(Memory::new()), 0).await;
    for token in [None, Some("forged-0123456789abcdef")] {
        let mut config = Config::new(server.url());
        config.token = token.map(Secret::new);
        let e = Rest::connect(config).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unauthenticated, "{e:?}");
        assert!(!format!("{e:?}").contains("forged"));
    }
    let begun = Instant::now();
    let mut config = Config::new("http://127.0.0.1:1");
    config.timeout = Duration::from_secs(2);
    let e = Rest::connect(config).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && begun.elapsed() < Duration::from_secs(5), "{e:?}");
}

trait Basic {
    fn info_is_basic(&self) -> bool;
}

impl Basic for Rest {
    fn info_is_basic(&self) -> bool {
        storage_core::StorageBackend::info(self).limits.metadata == 0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_somebody_else_is_found_and_used() {
    let server = Foreign::start();
    let url = format!("http://127.0.0.1:{}", server.port);
    let storage = Storage::new(Rest::open(&url).await.unwrap());
    assert!(storage.info().limits.metadata == 0 && !storage.info().refused_keys.is_empty());
    storage.put("notes/für heute", "v").await.unwrap();
    assert_eq!(storage.get("notes/für heute").await.unwrap().unwrap(), "v");
    assert_eq!(storage.stat("notes/für heute").await.unwrap().unwrap().size, 1);
    for key in ["..", "a/../b", "a//b", "/a", "a/", "a\\b", "a%b", "a\nb"] {
        assert_eq!(storage.put(key, "v").await.unwrap_err().kind(), ErrorKind::InvalidKey, "{key:?}");
    }
    storage.clear().await.unwrap();
    assert!(!storage.exists("notes/für heute").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_ends_on_the_server() {
    let (below, _server, _proxy, storage) = behind_a_proxy().await;
    let tx = storage.begin().await.unwrap();
    tx.put("k", "1").await.unwrap();
    drop(tx);
    // The memory backend lets one transaction of serializable ones win; a writer is not held up.
    tokio::time::timeout(Duration::from_secs(1), below.put("k", "2")).await.unwrap().unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "2");
}
