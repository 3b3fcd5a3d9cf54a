//! Answers that come late, or never: what became of the write is asked for within the time that is left.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::{Duration, Instant};

use futures_util::stream;
use storage_config::Secret;
use storage_conformance::proxy::{Fault, Mode, Proxy};
use storage_core::{Body, Bytes, ErrorKind, Key, PutOptions, Storage};
use storage_memory::Memory;
use storage_rest::{Config, Rest};
use support::{Running, TOKEN};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The time of a call that has used up its own.
const BOUND: Duration = Duration::from_millis(2600);

async fn connect(address: &str) -> Storage {
    let mut config = Config::new(format!("http://{address}"));
    config.token = Some(Secret::new(TOKEN));
    config.timeout = TIMEOUT;
    Storage::new(Rest::connect(config).await.unwrap())
}

async fn behind_a_proxy() -> (Storage, Running, Proxy, Storage) {
    let below = Storage::new(Memory::new());
    let server = Running::start(below.clone(), 0).await;
    let proxy = Proxy::start(&server.address.to_string()).unwrap();
    let storage = connect(&proxy.address()).await;
    (below, server, proxy, storage)
}

fn streamed() -> Body {
    Body::stream(stream::iter(["a".repeat(300_000), "b".into()].map(|piece| Ok(Bytes::from(piece)))))
}

/// Does this through a proxy that holds back the answer behind so many bytes, and looks how long it took.
async fn late<F: Future<Output = ()>>(first: usize, work: impl FnOnce(Storage, Storage) -> F) {
    let (below, _server, proxy, storage) = behind_a_proxy().await;
    below.put("there", "v").await.unwrap();
    proxy.spoil(0, 1, Fault::Trickle(first, Duration::from_secs(60)));
    let begun = Instant::now();
    work(storage, below).await;
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(proxy.forget(), "expected that an answer was held back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_too_late_is_settled_in_time() {
    // The answer stands still before its first byte, or within it.
    let each = [1, 30].map(async |first| {
        tokio::join!(
            late(first, |storage, below| async move {
                let entry = storage.put_with("k", "1", PutOptions::new().if_absent()).await.unwrap();
                // It was done, once, and its etag is the one that was told.
                assert_eq!(below.stat("k").await.unwrap().unwrap().etag, entry.etag);
            }),
            late(first, |storage, below| async move {
                assert_eq!(storage.put("k", streamed()).await.unwrap().size, 300_001);
                assert_eq!(below.get("k").await.unwrap().unwrap().len(), 300_001);
            }),
            late(first, |storage, below| async move {
                let items = [("a", "1"), ("b", "2")].map(|(key, value)| (Key::parse(key).unwrap(), Bytes::from(value)));
                assert_eq!(storage.put_batch(items).await.unwrap().len(), 2);
                assert_eq!(below.get("b").await.unwrap().unwrap(), "2");
            }),
            late(first, |storage, below| async move {
                // A refusal is an outcome, too.
                let e = storage.put_with("there", "2", PutOptions::new().if_absent()).await.unwrap_err();
                assert!(e.kind() == ErrorKind::AlreadyExists && !e.is_ambiguous(), "{e:?}");
                assert_eq!(below.get("there").await.unwrap().unwrap(), "v");
            }),
            late(first, |storage, below| async move {
                storage.delete("there").await.unwrap();
                assert!(below.stat("there").await.unwrap().is_none());
            }),
        );
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_has_not_arrived_in_time_is_never_done() {
    let (below, _server, proxy, storage) = behind_a_proxy().await;
    for body in [Body::from("v"), streamed()] {
        proxy.spoil(0, 1, Fault::Silence);
        let begun = Instant::now();
        let e = storage.put("k", body).await.unwrap_err();
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        assert!(e.kind() == ErrorKind::Timeout && !e.is_ambiguous() && e.is_retryable(), "{e:?}");
        assert!(proxy.forget() && below.stat("k").await.unwrap().is_none());
    }
}

/// A proxy that passes on each `PUT` after so long.
async fn delaying(server: String, wait: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let upstream = TcpStream::connect(&server).await.unwrap();
                let ((mut from, mut to_client), (mut from_server, mut to)) =
                    (client.into_split(), upstream.into_split());
                tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
                let mut piece = vec![0; 64 << 10];
                while let Ok(n @ 1..) = from.read(&mut piece).await {
                    if piece.starts_with(b"PUT ") {
                        tokio::time::sleep(wait).await;
                    }
                    if to.write_all(&piece[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_arrives_after_its_outcome_was_told_is_not_done() {
    let below = Storage::new(Memory::new());
    let server = Running::start(below.clone(), 0).await;
    // It arrives when the server was asked already, and before the client has gone.
    let storage = connect(&delaying(server.address.to_string(), TIMEOUT * 9 / 10).await).await;
    let e = storage.put("late", "v").await.unwrap_err();
    assert!(e.kind() == ErrorKind::Timeout && !e.is_ambiguous(), "{e:?}");
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(below.stat("late").await.unwrap().is_none());
    // One that arrives in time is done, however slow the way.
    let storage = connect(&delaying(server.address.to_string(), TIMEOUT / 2).await).await;
    storage.put("slow", "v").await.unwrap();
    assert_eq!(below.get("slow").await.unwrap().unwrap(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_can_be_learned_in_time_the_write_is_ambiguous() {
    let (below, _server, proxy, storage) = behind_a_proxy().await;
    storage.put("warm", "v").await.unwrap();
    // The request goes through, and no answer does, neither its own nor that to the question.
    proxy.hold(0);
    let begun = Instant::now();
    let e = storage.put("k", "1").await.unwrap_err();
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(e.kind() == ErrorKind::Timeout && e.is_ambiguous(), "{e:?}");
    assert_eq!(below.get("k").await.unwrap().unwrap(), "1");
    proxy.release();
    // Nothing goes through at all.
    proxy.set(Mode::Hang);
    let begun = Instant::now();
    let e = storage.put("k", "2").await.unwrap_err();
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert!(e.kind() == ErrorKind::Timeout && e.is_ambiguous(), "{e:?}");
    proxy.set(Mode::Pass);
    proxy.reset();
    storage.put("k", "3").await.unwrap();
    assert_eq!(below.get("k").await.unwrap().unwrap(), "3");
}
