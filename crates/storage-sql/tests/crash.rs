//! A process that is killed while it writes: what it was told is stored is stored, and nothing else half.

#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::TryStreamExt;
use storage_core::{BatchOptions, PutOptions, Storage};
use storage_sql::{Config, Sql};
use support::Place;

const PATH: &str = "STORAGE_SQL_TEST_CHILD";

fn config(path: PathBuf) -> Config {
    let mut config = Config::sqlite(path);
    config.chunk_size = 4096;
    config
}

/// What the process that is killed does; on its own it does nothing.
#[tokio::test]
async fn child() {
    let Some(path) = env::var_os(PATH) else {
        return;
    };
    let storage = Storage::new(Sql::connect(config(path.into())).await.unwrap());
    let mut out = std::io::stdout();
    for i in 0.. {
        // A small value, a large one, and two that belong together.
        storage.put(format!("small/{i}"), i.to_string()).await.unwrap();
        storage.put("large", vec![i as u8; 100_000]).await.unwrap();
        let pair = ["a", "b"].map(|key| (key, i.to_string(), PutOptions::new()));
        storage.put_batch_with(pair, BatchOptions::new().atomic(true)).await.unwrap();
        writeln!(out, "acknowledged {i}").unwrap();
    }
}

fn spawn(place: &Place) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(PATH, place.path());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let place = Place::new();
    for round in 0..8 {
        let mut child = spawn(&place);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 3 + round;
        let mut acknowledged = None;
        for line in lines.by_ref().map_while(Result::ok) {
            acknowledged = line.strip_prefix("acknowledged ").map(|n| n.parse::<u64>().unwrap()).or(acknowledged);
            if acknowledged >= Some(wanted) {
                break;
            }
        }
        // At another point of the next writes each time.
        std::thread::sleep(Duration::from_micros(700 * round));
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            acknowledged = line.strip_prefix("acknowledged ").map(|n| n.parse().unwrap()).or(acknowledged);
        }
        child.wait().unwrap();
        let last = acknowledged.unwrap();

        let storage = place.connect(config(place.path())).await;
        for i in 0..=last {
            let value = storage.get(format!("small/{i}")).await.unwrap().unwrap();
            assert_eq!(value, i.to_string());
        }
        let large = storage.get("large").await.unwrap().unwrap();
        assert_eq!(large.len(), 100_000);
        assert!(large.iter().all(|byte| *byte == large[0]), "a mix of two values");
        let number = |value: Option<storage_core::Bytes>| {
            String::from_utf8(value.unwrap().to_vec()).unwrap().parse::<u64>().unwrap()
        };
        let (a, b) = (number(storage.get("a").await.unwrap()), number(storage.get("b").await.unwrap()));
        assert!(a == b && a >= last, "{a} and {b} after {last} was acknowledged");
        let keys: Vec<_> = storage.keys().await.unwrap().try_collect().await.unwrap();
        let strange = keys.iter().filter(|key| !key.as_str().starts_with("small/")).count();
        assert_eq!(strange, 3, "{keys:?}");
        storage.clear().await.unwrap();
    }
}
