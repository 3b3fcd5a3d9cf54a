//! Several processes on one root. What a process leaves that is killed while it writes is the matter of `kill9.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use storage_core::{Body, Condition, ErrorKind, GetOptions, PutOptions, Storage};
use storage_fs::Fs;

/// What a child process does, and where.
const JOB: &str = "STORAGE_FS_JOB";
const ROOT: &str = "STORAGE_FS_ROOT";

async fn open(root: &Path) -> Storage {
    Storage::new(Fs::open(root).await.unwrap())
}

/// Runs this test binary again, to do a job.
fn child(job: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "job", "--nocapture", "--quiet"])
        .env(JOB, job)
        .env(ROOT, root)
        .stdin(Stdio::piped())
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
        ("count", times) => count(&storage, times.parse().unwrap()).await,
        ("stage", _) => stage(&storage).await,
        ("write", _) => write(&storage).await,
        other => panic!("{other:?}"),
    }
}

/// Adds one so often, by reading and writing under a condition.
async fn count(storage: &Storage, times: usize) {
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
    let children = [(); 4].map(|()| child("count 100", root.path()));
    let storage = open(root.path()).await;
    let tasks = [(); 2].map(|()| {
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
    assert_eq!(storage.get("counter").await.unwrap().unwrap(), "500");
}

/// Stages a value and waits to be killed.
async fn stage(storage: &Storage) {
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

/// Writes what it is told, until its input ends.
async fn write(storage: &Storage) {
    say("connected");
    for line in std::io::stdin().lines() {
        storage.put("k", line.unwrap()).await.unwrap();
        say("written");
    }
}

/// All that write a file meet at its lock, so the rule of dropped writes holds among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_up_never_replaces_what_anybody_wrote_later() {
    let root = tempfile::tempdir().unwrap();
    let (storage, second) = (open(root.path()).await, open(root.path()).await);
    let mut process = child("write", root.path());
    let mut input = process.stdin.take().unwrap();
    let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut answer = |text: &str| assert!(answers.any(|line| line.unwrap().contains(text)), "the process has ended");
    answer("connected");
    let staging = root.path().join(".storage/staging");
    let large = Bytes::from(vec![b'l'; 100 << 20]);
    for round in 0..120 {
        let (value, moment) = match round {
            0..6 => (large.clone(), Duration::from_millis(20)),
            _ if round % 2 == 0 => (large.slice(..1 << 20), Duration::from_micros(round * 61 % 3000)),
            _ => (large.slice(..100), Duration::from_micros(round * 37 % 1000)),
        };
        let _given_up = tokio::time::timeout(moment, storage.put("k", value)).await;
        let new = format!("new {round}");
        match round % 3 {
            0 => drop(storage.put("k", new.clone()).await.unwrap()),
            1 => drop(second.put("k", new.clone()).await.unwrap()),
            _ => {
                writeln!(input, "{new}").unwrap();
                answer("written");
            }
        }
        // Until nothing is under way any more: all that is staged are the lock files of the three.
        let mut looks = 0..1000;
        loop {
            for reader in [&storage, &second] {
                let seen = reader.get("k").await.unwrap().unwrap();
                assert!(seen == new, "{} bytes in place of {new:?}", seen.len());
            }
            if fs::read_dir(&staging).unwrap().count() == 3 {
                break;
            }
            assert!(looks.next().is_some(), "something stays staged");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    drop(input);
    assert!(process.wait().unwrap().success());
}
