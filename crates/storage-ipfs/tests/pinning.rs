//! A remote pinning service: a stand-in after <https://ipfs.github.io/pinning-services-api-spec/>, for no real one can be had here.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use storage_config::Secret;
use storage_core::{ErrorKind, Storage};
use storage_ipfs::{Config, Ipfs, RemotePin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[derive(Default)]
struct State {
    /// Pins by their request: what of, and how often they were asked for since.
    pins: BTreeMap<String, (Value, u32)>,
    /// How it answers everything, if not well.
    refuses: Option<u16>,
    /// What becomes of a request.
    ends: &'static str,
    posts: usize,
}

type Service = Arc<Mutex<State>>;

async fn service() -> (String, Service) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/psa", listener.local_addr().unwrap());
    let service = Service::default();
    service.lock().unwrap().ends = "pinned";
    let state = service.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let state = state.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                loop {
                    if client.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() < length.unwrap_or(0) {
                        continue;
                    }
                    let (status, answer) = answer(&mut state.lock().unwrap(), head, body);
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                        answer.len()
                    );
                    let _ = client.write_all(answer.as_bytes()).await;
                    return;
                }
            });
        }
    });
    (address, service)
}

fn answer(state: &mut State, head: &str, body: &str) -> (u16, String) {
    let failure = |reason: &str| json!({"error": {"reason": reason}}).to_string();
    if let Some(status) = state.refuses {
        return (status, failure("REFUSED"));
    }
    if !head.to_lowercase().contains("authorization: bearer t0ken") {
        return (401, failure("UNAUTHORIZED"));
    }
    let head = head.replace("%2D", "-");
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap().strip_prefix("/psa/pins").unwrap());
    let ends = state.ends;
    let shown = |id: &str, pin: &Value, asked: u32| {
        let status = match asked {
            0 => "queued",
            1 => "pinning",
            _ => ends,
        };
        json!({"requestid": id, "status": status, "created": "2026-01-01T00:00:00Z", "pin": pin, "delegates": []})
    };
    match (method, path.split_once('?'), path.strip_prefix('/')) {
        ("POST", ..) => {
            let id = format!("request-{}", state.posts);
            state.posts += 1;
            let pin: Value = serde_json::from_str(body).unwrap();
            let answer = shown(&id, &pin, 0).to_string();
            state.pins.insert(id, (pin, 1));
            (202, answer)
        }
        ("GET", Some((_, query)), _) => {
            let cid = query.split('&').find_map(|pair| pair.strip_prefix("cid=")).unwrap();
            let of_it = state.pins.iter().filter(|(_, (pin, _))| pin["cid"] == cid);
            let results: Vec<Value> = of_it.map(|(id, (pin, asked))| shown(id, pin, *asked)).collect();
            (200, json!({"count": results.len(), "results": results}).to_string())
        }
        ("GET", _, Some(id)) => match state.pins.get_mut(id) {
            Some((pin, asked)) => {
                let answer = shown(id, pin, *asked).to_string();
                *asked += 1;
                (200, answer)
            }
            None => (404, failure("NOT_FOUND")),
        },
        ("DELETE", _, Some(id)) => match state.pins.remove(id) {
            Some(_) => (202, String::new()),
            None => (404, failure("NOT_FOUND")),
        },
        _ => (400, failure("BAD_REQUEST")),
    }
}

fn config(address: &str, waits: bool) -> Config {
    let mut config = support::config(&support::node()).unwrap();
    config.pinning_service = Some(address.into());
    config.pinning_token = Some(Secret::new("t0ken"));
    config.pinning_wait = waits;
    config.timeout = Duration::from_secs(5);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_asked_before_a_value_has_a_name() {
    if support::is_missing_node() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (address, service) = service().await;
    let index = support::index(dir.path()).await.unwrap();
    let storage = Storage::typed(Ipfs::connect(config(&address, true), index.clone()).await.unwrap());
    let value = format!("kept elsewhere {}", fastrand::u64(..));
    storage.put("k", value.clone()).await.unwrap();
    assert_eq!(storage.backend().remote_pin("k").await.unwrap(), Some(RemotePin::Pinned));
    assert_eq!(storage.backend().remote_pin("absent").await.unwrap(), None);
    storage.put("equal", value).await.unwrap();
    assert_eq!(service.lock().unwrap().posts, 1, "equal content was asked for before");
    // Without waiting, it is enough that the request was taken.
    let quick = Storage::typed(Ipfs::connect(config(&address, false), index).await.unwrap());
    quick.put("quick", fastrand::u64(..).to_string()).await.unwrap();
    assert_eq!(quick.backend().remote_pin("quick").await.unwrap(), Some(RemotePin::Pinning));
    assert_eq!(service.lock().unwrap().pins.len(), 2);
    // What is refused, or fails, gets no name.
    for (refuses, ends, kind) in [
        (Some(401), "pinned", ErrorKind::Unauthenticated),
        (Some(403), "pinned", ErrorKind::PermissionDenied),
        (Some(429), "pinned", ErrorKind::RateLimited),
        (Some(500), "pinned", ErrorKind::Unavailable),
        (None, "failed", ErrorKind::Unavailable),
        (None, "pinning", ErrorKind::Timeout),
    ] {
        (service.lock().unwrap().refuses, service.lock().unwrap().ends) = (refuses, ends);
        for value in [fastrand::u64(..).to_string().into_bytes(), vec![fastrand::u8(..); 2 << 20]] {
            let e = storage.put("refused", value).await.unwrap_err();
            assert_eq!(e.kind(), kind, "{refuses:?} {ends}: {e:?}");
            assert!(!format!("{e:?}").contains("t0ken") && !e.is_ambiguous());
        }
        assert_eq!(storage.stat("refused").await.unwrap(), None);
    }
    let mut without = support::config(&support::node()).unwrap();
    without.pinning_wait = true;
    let e = Ipfs::connect(without, support::index(dir.path()).await.unwrap()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(!format!("{:?}", config(&address, true)).contains("t0ken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loses_its_last_key_is_taken_back() {
    if daemon::is_missing() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = daemon::Daemon::start(dir.path()).await;
    let (address, service) = service().await;
    let mut config = Config::new(&node.address()).unwrap();
    config.pinning_service = Some(address);
    config.pinning_token = Some(Secret::new("t0ken"));
    let storage = Storage::typed(Ipfs::connect(config, support::index(dir.path()).await.unwrap()).await.unwrap());
    storage.put("a", "equal").await.unwrap();
    storage.put("b", "equal").await.unwrap();
    storage.put("c", vec![1; 2 << 20]).await.unwrap();
    storage.delete("a").await.unwrap();
    storage.backend().sweep().await.unwrap();
    assert_eq!(service.lock().unwrap().pins.len(), 2);
    storage.clear().await.unwrap();
    for _ in 0..100 {
        storage.backend().sweep().await.unwrap();
        if service.lock().unwrap().pins.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(service.lock().unwrap().pins.len(), 0);
    assert_eq!(node.ours().await.len(), 0);
}
