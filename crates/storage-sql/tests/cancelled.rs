//! Calls of a transaction that are cut off half way: no later call takes the rest of an answer for its own.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::{Duration, Instant};

use storage_config::ConnectionConfig;
use storage_core::{ErrorKind, Query, Storage};
use storage_sql::Config;
use support::{Place, kind, proxy::Proxy};
use tokio::time::{sleep, timeout};

/// So many bytes of an answer are more than what comes before its row, and fewer than the row.
const AMID_THE_ROW: usize = 4096;

fn value(letter: u8) -> Vec<u8> {
    vec![letter; 256 << 10]
}

/// A store with one connection, behind a proxy.
async fn behind(proxy: &Proxy, place: &Place, timeout: Duration) -> Storage {
    let mut config = Config::from_connection(&ConnectionConfig::new(proxy.uri(&place.table))).unwrap();
    (config.max_connections, config.timeout) = (1, timeout);
    place.connect(config).await
}

#[tokio::test]
async fn a_read_dropped_amid_its_answer_leaves_the_transaction_as_it_was() {
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        let storage = behind(&proxy, &place, Duration::from_secs(30)).await;
        storage.put("a", value(b'a')).await.unwrap();
        storage.put("small", "s").await.unwrap();
        let tx = storage.begin().await.unwrap();
        tx.put("b", "b").await.unwrap();
        proxy.hold(AMID_THE_ROW);
        assert!(timeout(Duration::from_millis(300), tx.get("a")).await.is_err());
        proxy.release();
        assert_eq!(tx.get("small").await.unwrap().unwrap(), "s");
        assert_eq!(tx.get("a").await.unwrap().unwrap(), value(b'a'));
        tx.put("c", "c").await.unwrap();
        tx.commit().await.unwrap();
        for (key, letter) in [("b", "b"), ("c", "c"), ("small", "s")] {
            assert_eq!(storage.get(key).await.unwrap().unwrap(), letter);
        }
    }
}

#[tokio::test]
async fn a_transaction_whose_statement_took_too_long_is_over() {
    for place in Place::servers() {
        for commit in [true, false] {
            let proxy = Proxy::new(place.engine);
            let storage = behind(&proxy, &place, Duration::from_secs(2)).await;
            storage.put("a", value(b'a')).await.unwrap();
            storage.put("small", "s").await.unwrap();
            let tx = storage.begin().await.unwrap();
            tx.put("b", "b").await.unwrap();
            proxy.hold(AMID_THE_ROW);
            let e = tx.get("a").await.unwrap_err();
            assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, false), "{e:?}");
            proxy.release();
            let begun = Instant::now();
            match commit {
                true => {
                    let e = tx.commit().await.unwrap_err();
                    assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Conflict, false), "{e:?}");
                }
                false => {
                    assert_eq!(kind(tx.get("small").await), ErrorKind::Conflict);
                    tx.rollback().await.unwrap();
                }
            }
            assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
            for _ in 0..3 {
                assert_eq!(storage.get("small").await.unwrap().unwrap(), "s");
                assert_eq!(storage.get("a").await.unwrap().unwrap(), value(b'a'));
            }
            assert_eq!(storage.get("b").await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_commit_that_took_too_long_is_ambiguous_and_ends_its_connection() {
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        let storage = behind(&proxy, &place, Duration::from_secs(2)).await;
        storage.put("a", value(b'a')).await.unwrap();
        let tx = storage.begin().await.unwrap();
        tx.put("b", "b").await.unwrap();
        let before = proxy.statements();
        // Less than the answer has.
        proxy.hold(6);
        let e = tx.commit().await.unwrap_err();
        assert_eq!((e.kind(), e.is_ambiguous()), (ErrorKind::Timeout, true), "{e:?}");
        proxy.release();
        sleep(Duration::from_millis(100)).await;
        // Nothing follows the commit on a connection that still has to hear of it.
        assert_eq!(proxy.statements(), before + 1);
        for _ in 0..3 {
            assert_eq!(storage.get("a").await.unwrap().unwrap(), value(b'a'));
            assert_eq!(storage.get("b").await.unwrap().unwrap(), "b");
        }
    }
}

#[tokio::test]
async fn a_streamed_write_dropped_as_it_begins_leaves_nothing() {
    for place in Place::servers() {
        let proxy = Proxy::new(place.engine);
        let storage = behind(&proxy, &place, Duration::from_secs(30)).await;
        let staged = || place.count("SELECT count(*) FROM storage_uploads WHERE entry IS NULL");
        let large = value(b'k').repeat(3);
        // Its statements are prepared from now on, so that the first thing sent is what stages it.
        storage.put("k", large.clone()).await.unwrap();
        storage.delete("k").await.unwrap();
        for _ in 0..3 {
            // The connection goes back to the pool, which asks whether it still works.
            sleep(Duration::from_millis(200)).await;
            proxy.hold(0);
            assert!(timeout(Duration::from_millis(500), storage.put("k", large.clone())).await.is_err());
            assert_eq!(staged().await, 1, "it has not begun on {:?}", place.engine);
            proxy.release();
            assert_eq!(storage.get("k").await.unwrap(), None);
            let mut looks = 0..100;
            while staged().await > 0 {
                assert!(looks.next().is_some(), "something stays staged on {:?}", place.engine);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_dropped_at_any_moment_leave_the_transaction_as_it_was() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    fastrand::seed(seed);
    for place in Place::all() {
        let mut config = place.config();
        config.max_connections = 2;
        let storage = place.connect(config).await;
        for letter in b'a'..b'f' {
            storage.put((letter as char).to_string(), value(letter)).await.unwrap();
        }
        for round in 0..20_u8 {
            let tx = storage.begin().await.unwrap();
            for n in 0..10_u8 {
                let key = (fastrand::u8(b'a'..b'f') as char).to_string();
                let moment = Duration::from_micros(fastrand::u64(0..1500));
                tokio::select! {
                    biased;
                    read = tx.get(&key) => assert_eq!(read.unwrap().unwrap(), value(key.as_bytes()[0])),
                    () = sleep(moment) => {}
                }
                tokio::select! {
                    biased;
                    page = tx.query_page(Query::new()) => assert!(page.unwrap().entries.len() >= 5),
                    () = sleep(moment / 3) => {}
                }
                tx.put(format!("written/{n}"), vec![round; 1000]).await.unwrap();
                assert_eq!(tx.get(format!("written/{n}")).await.unwrap().unwrap(), vec![round; 1000]);
            }
            tx.commit().await.unwrap();
            for n in 0..10_u8 {
                assert_eq!(storage.get(format!("written/{n}")).await.unwrap().unwrap(), vec![round; 1000]);
            }
            for letter in b'a'..b'f' {
                assert_eq!(storage.get((letter as char).to_string()).await.unwrap().unwrap(), value(letter));
            }
        }
    }
}
