//! Several processes on one root, some of which are killed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use storage_core::{Body, Condition, ErrorKind, GetOptions, PutOptions, Storage};
use storage_fs::Fs;

/// What a child process does, and where.
const JOB: &str = "STORAGE_FS_JOB";
const ROOT: &str = "STORAGE_FS_ROOT";

async fn open(root: &Path) -> Storage<Fs> {
    Storage::new(Fs::open(root).await.unwrap())
}

/// Runs this test binary again, to do a job.
fn child(job: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "job", "--nocapture", "--quiet"])
        .env(JOB, job)
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job() {
    let (Ok(job), Some(root)) = (std::env::var(JOB), std::env::var_os(ROOT)) else {
        return;
    };
    let storage = open(Path::new(&root)).await;
    match job.split_once(' ').unwrap_or((&job, "")) {
        ("write", seed) => write(&storage, seed).await,
        ("count", times) => count(&storage, times.parse().unwrap()).await,
        ("stage", _) => stage(&storage).await,
        other => panic!("{other:?}"),
    }
}

/// Writes one value after the other and says which it has written. It never ends.
async fn write(storage: &Storage<Fs>, seed: &str) {
    for n in 0_usize.. {
        let key = format!("d{}/k{}", n % 3, n % 7);
        // The pieces of a value name it, so that a mix or a part shows.
        let line = format!("{seed} {n}\n");
        let value = line.repeat(1 + n % 5 * 10_000);
        let metadata = storage_core::Metadata::new().field("line", line.as_str());
        let body = if n % 2 == 0 {
            Body::from(value)
        } else {
            let pieces: Vec<_> =
                value.as_bytes().chunks(50_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            Body::stream(stream::iter(pieces))
        };
        let put = PutOptions::new().metadata(metadata);
        storage.put_with(&key, body, put).await.unwrap();
        say(&format!("ack {n}"));
    }
}

#[tokio::test]
async fn kill_9_keeps_what_was_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let mut interrupted = 0;
    for round in 0..20 {
        // Every round begins with an empty store under the same root, to keep the bookkeeping simple.
        open(root.path()).await.clear().await.unwrap();
        let mut child = child(&format!("write {round}"), root.path());
        let mut acknowledged = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref() {
            if let Some(n) = line.unwrap().strip_prefix("ack ") {
                acknowledged.push(n.parse::<usize>().unwrap());
            }
            if acknowledged.len() == 10 + round {
                thread::sleep(Duration::from_micros(137 * round as u64));
                child.kill().unwrap();
                break;
            }
        }
        child.wait().unwrap();
        acknowledged.extend(lines.filter_map(|line| line.unwrap().strip_prefix("ack ")?.parse::<usize>().ok()));
        let last = *acknowledged.last().unwrap();
        let staging = root.path().join(".storage/staging");
        // Beside the lock file, what was staged.
        interrupted += usize::from(fs::read_dir(&staging).unwrap().count() > 1);

        let storage = open(root.path()).await;
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 1, "only the lock file of this process");
        for slot in 0..21 {
            let key = format!("d{}/k{}", slot % 3, slot % 7);
            let newest = acknowledged.iter().rev().find(|n| *n % 21 == slot);
            let Some(newest) = newest else { continue };
            let object = storage.open(&key, GetOptions::new().whole(true)).await.unwrap();
            let object = object.unwrap_or_else(|| panic!("{key}: {newest} was lost"));
            let metadata = object.entry.metadata.clone().unwrap();
            let value = object.body.bytes(u64::MAX).await.unwrap();
            // The write that was interrupted may have taken place.
            let candidates = [*newest, last + 1].map(|n| (n, format!("{round} {n}\n")));
            let found = candidates.iter().find(|(n, line)| value == line.repeat(1 + n % 5 * 10_000));
            let (n, line) = found.unwrap_or_else(|| panic!("{key}: torn or old, {} bytes", value.len()));
            assert!(n % 21 == slot);
            assert_eq!(*metadata, storage_core::Metadata::new().field("line", line.as_str()));
        }
    }
    println!("{interrupted} of 20 kills left something staged");
}

/// Adds one so often, by reading and writing under a condition.
async fn count(storage: &Storage<Fs>, times: usize) {
    for _ in 0..times {
        loop {
            let object = storage.open("counter", GetOptions::new()).await.unwrap();
            let (value, condition) = match object {
                None => (0, Condition::IfAbsent),
                Some(object) => {
                    let etag = object.entry.etag.clone().unwrap();
                    let text = object.body.bytes(100).await.unwrap();
                    let value: u64 = std::str::from_utf8(&text).unwrap().parse().unwrap();
                    (value, Condition::IfMatch(etag))
                }
            };
            let put = PutOptions::new().condition(condition);
            match storage.put_with("counter", (value + 1).to_string(), put).await {
                Ok(_) => break,
                Err(e) if matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counting_processes_lose_no_count() {
    let root = tempfile::tempdir().unwrap();
    let children = [(); 2].map(|()| child("count 100", root.path()));
    let storage = open(root.path()).await;
    let tasks = [(); 3].map(|()| {
        let storage = storage.clone();
        tokio::spawn(async move { count(&storage, 50).await })
    });
    for task in tasks {
        task.await.unwrap();
    }
    for mut child in children {
        let status = tokio::task::spawn_blocking(move || child.wait());
        assert!(status.await.unwrap().unwrap().success());
    }
    assert_eq!(storage.get("counter").await.unwrap().unwrap(), "350");
}

/// Stages a value and waits to be killed.
async fn stage(storage: &Storage<Fs>) {
    let pieces = stream::iter([Ok(Bytes::from(vec![1; 2 << 20]))]).chain(stream::once(async {
        say("staged");
        std::future::pending().await
    }));
    storage.put("k", Body::stream(pieces)).await.unwrap();
}

#[tokio::test]
async fn only_the_staging_of_the_dead_is_swept() {
    let root = tempfile::tempdir().unwrap();
    let staging = root.path().join(".storage/staging");
    let count = || fs::read_dir(&staging).unwrap().count();
    let mut child = child("stage", root.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("staged")));
    let first = open(root.path()).await;
    assert_eq!(count(), 3, "a lock file and a value of the child, our lock file");
    child.kill().unwrap();
    child.wait().unwrap();
    let _second = open(root.path()).await;
    assert_eq!(count(), 2, "our two lock files");
    drop(first);
    assert_eq!(count(), 1);
}

#[tokio::test]
async fn a_dropped_put_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    let mut pieces = stream::iter([Ok(Bytes::from(vec![1; 2 << 20]))]).chain(stream::pending());
    let body = Body::stream(stream::poll_fn(move |context| pieces.poll_next_unpin(context)));
    let put = storage.put("k", body);
    assert!(tokio::time::timeout(Duration::from_millis(100), put).await.is_err());
    let staging = root.path().join(".storage/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 1);
    assert!(!storage.exists("k").await.unwrap());
}
