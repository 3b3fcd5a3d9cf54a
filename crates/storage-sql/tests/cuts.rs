//! Servers that go away amid the work: what was acknowledged is kept, what fails says that trying again can help, and nothing
//! hangs.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use storage_config::ConnectionConfig;
use storage_conformance::proxy::Mode;
use storage_core::{Error, Metadata, PutOptions, Storage};

use storage_sql::Config;
use support::{Engine, Place, proxy::Proxy};
use tokio::{sync::Mutex, time::sleep};

/// Held by the test that runs: each would fail by what another does to the server.
static ALONE: Mutex<()> = Mutex::const_new(());
/// How long one call may take, with all waiting for locks and connections.
const PATIENCE: Duration = Duration::from_secs(20);

async fn behind(proxy: &Proxy, place: &Place) -> Storage {
    let mut config = Config::from_connection(&ConnectionConfig::new(proxy.uri(&place.table))).unwrap();
    config.busy_timeout = Duration::from_secs(2);
    config.timeout = Duration::from_secs(5);
    config.chunk_size = 4096;
    place.connect(config).await
}

/// What a writer knows of the keys that only it writes: the last value acknowledged, and the last that was tried.
#[derive(Default)]
struct Known(BTreeMap<String, (u64, u64)>);

/// Writes rising numbers in every way there is until told to stop. Returns what it knows, and how often it failed.
async fn write(storage: Storage, writer: usize, over: Arc<AtomicBool>) -> (Known, u64) {
    let (mut known, mut failures) = (Known::default(), 0);
    for n in 1.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let names = |kind: &str| format!("{writer}/{kind}");
        let text = n.to_string();
        let (keys, call): (Vec<String>, _) = match n % 4 {
            0 => {
                let key = names("plain");
                (vec![key.clone()], tokio::time::timeout(PATIENCE, storage.put(key, text)).await.map(|r| r.map(drop)))
            }
            1 => {
                let metadata = PutOptions::new().metadata(Metadata::new().tag(text.clone()).field("n", n as i64));
                let key = names("described");
                let put = storage.put_with(key.clone(), text, metadata);
                (vec![key], tokio::time::timeout(PATIENCE, put).await.map(|r| r.map(drop)))
            }
            2 => {
                let key = names("large");
                let put = storage.put(key.clone(), format!("{text} ").repeat(20_000));
                (vec![key], tokio::time::timeout(PATIENCE, put).await.map(|r| r.map(drop)))
            }
            _ => {
                let pair = [names("a"), names("b")];
                let work = storage.transaction(|tx| {
                    let (pair, text) = (pair.clone(), text.clone());
                    async move {
                        for key in pair {
                            tx.put(key, text.clone()).await?;
                        }
                        Ok(())
                    }
                });
                (pair.clone().into(), tokio::time::timeout(PATIENCE, work).await)
            }
        };
        let done: Result<(), Error> = call.expect("a call hangs");
        for key in keys {
            let known = known.0.entry(key).or_default();
            known.1 = n;
            if done.is_ok() {
                known.0 = n;
            }
        }
        if let Err(e) = done {
            failures += 1;
            assert!(e.is_retryable(), "{e:?}");
        }
    }
    (known, failures)
}

/// Lets four writers write while the server is disturbed.
async fn under_load(place: &Place, proxy: &Proxy, what: &str, disturb: impl AsyncFn()) {
    let storage = behind(proxy, place).await;
    storage.clear().await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4).map(|i| tokio::spawn(write(storage.clone(), i, over.clone()))).collect();
    for _ in 0..6 {
        // Long enough for new connections, which cost some computing.
        sleep(Duration::from_millis(600)).await;
        disturb().await;
    }
    let begun = Instant::now();
    // It must work again by itself.
    while let Err(e) = storage.put("alive", "v").await {
        assert!(e.is_retryable() && begun.elapsed() < PATIENCE, "{e:?}");
    }
    sleep(Duration::from_millis(150)).await;
    over.store(true, Ordering::SeqCst);
    let (mut failures, mut acknowledged) = (0, 0);
    for writer in writers {
        let (known, failed) = writer.await.unwrap();
        failures += failed;
        for (key, (least, most)) in known.0 {
            let value = storage.get(key.as_str()).await.unwrap();
            let text = value.map(|value| String::from_utf8(value.to_vec()).unwrap()).unwrap_or_default();
            let mut words = text.split_whitespace();
            let seen: u64 = words.next().map_or(0, |word| word.parse().unwrap());
            assert!(words.all(|word| word == seen.to_string()), "{key} is a mix");
            assert!((least..=most).contains(&seen), "{what}: {key} is {seen}, {least} was acknowledged, {most} tried");
            acknowledged += least;
        }
        let pair = storage.get_batch(["0/a", "0/b"]).await.unwrap();
        assert!(pair.values().collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]), "half a transaction");
    }
    eprintln!("{:?}, {what}: {failures} calls failed, the last numbers add up to {acknowledged}", place.engine);
    assert!(failures > 0, "{what}: nothing was disturbed");
    // Nothing stays staged: it is removed at once, or by the next connection that sweeps.
    drop(storage);
    let mut config = place.config();
    config.sweep_after = Duration::ZERO;
    drop(place.connect(config).await);
    assert_eq!(place.count("SELECT count(*) FROM storage_uploads WHERE entry IS NULL AND past IS NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut() {
    let _alone = ALONE.lock().await;
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        under_load(&place, &proxy, "cut", async || proxy.reset()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_kills_the_connections() {
    let _alone = ALONE.lock().await;
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        under_load(&place, &proxy, "killed", async || {
            for port in proxy.ports() {
                match place.engine {
                    Engine::Postgres => {
                        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE client_port =";
                        place.count(&format!("{sql} {port}")).await;
                    }
                    _ => {
                        let sql = "SELECT COALESCE(MAX(id), 0) FROM information_schema.processlist WHERE host LIKE";
                        let id = place.count(&format!("{sql} '%:{port}'")).await;
                        // It may have gone by itself since.
                        place.try_raw(&format!("KILL {id}")).await;
                    }
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_down_for_a_while() {
    let _alone = ALONE.lock().await;
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        under_load(&place, &proxy, "down", async || {
            proxy.set(Mode::Cut);
            sleep(Duration::from_millis(250)).await;
            proxy.set(Mode::Pass);
        })
        .await;
    }
}

/// The variable `…_RESTART` beside that of the address says how the server is restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_restarted() {
    let _alone = ALONE.lock().await;
    for place in Place::servers() {
        let variable = format!("{}_RESTART", place.engine.variable());
        let Some(command) = storage_conformance::server(&variable) else {
            continue;
        };
        let proxy = Proxy::new(place.engine);
        let times = std::sync::atomic::AtomicU32::new(0);
        under_load(&place, &proxy, "restarted", async || {
            if times.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
                let mut shell = Command::new("sh");
                shell.args(["-c", &command]);
                let done = tokio::task::spawn_blocking(move || shell.status().unwrap()).await.unwrap();
                assert!(done.success(), "the server was not restarted");
            }
        })
        .await;
    }
}
