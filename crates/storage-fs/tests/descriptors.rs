//! A process with few file descriptors: what an operation needs of them does not depend on how much it is about.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

use futures_util::{StreamExt, TryStreamExt, future::join_all};
use storage_core::{Entry, GetOptions, PutOptions, Result, Storage};
use storage_fs::{Config, Durability, Fs};

const ROOT: &str = "STORAGE_FS_ROOT";
/// Directories in a batch.
const DIRECTORIES: usize = 2500;

/// In memory where there is such a place, since nothing here is about a disk.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a test of this program again, with at most so many file descriptors.
fn run_with(descriptors: u32, test: &str, root: &Path) {
    let me = std::env::current_exe().unwrap();
    let limited = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    let mut child = Command::new("sh");
    child.args(["-c", &limited]).arg(me).args(["--exact", test, "--nocapture", "--quiet", "--test-threads=1"]);
    let output = child.env(ROOT, root).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("did the job"), "{descriptors} descriptors: {said}");
}

async fn open() -> Option<Storage> {
    let mut config = Config::default();
    config.root = std::env::var_os(ROOT)?.into();
    config.durability = Durability::Relaxed;
    Some(Storage::new(Fs::connect(config).await.unwrap()))
}

#[test]
fn a_batch_over_many_directories() {
    run_with(64, "batches", directory().path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches() {
    let Some(storage) = open().await else { return };
    let keys = || (0..DIRECTORIES).map(|n| format!("{n}/below/value"));
    let written = storage.put_batch_with(keys().map(|key| (key.clone(), key, PutOptions::new())), Default::default());
    written.await.unwrap().into_iter().collect::<Result<Vec<_>>>().unwrap();
    let read = storage.get_batch(keys()).await.unwrap();
    assert!(read.len() == DIRECTORIES && read.iter().all(|(key, value)| key.as_str() == value));
    assert_eq!(storage.list("").await.unwrap().try_collect::<Vec<Entry>>().await.unwrap().len(), DIRECTORIES);
    let (first, rest) = (keys().take(DIRECTORIES / 2), keys().skip(DIRECTORIES / 2));
    storage.delete_batch(first).await.unwrap();
    // Many calls at once need no more than a batch.
    let renamed = rest.map(|key| storage.rename(key.clone(), format!("{key}/renamed"))).take(200);
    join_all(renamed).await.into_iter().collect::<Result<Vec<_>>>().unwrap();
    storage.clear().await.unwrap();
    assert_eq!(storage.list("").await.unwrap().try_collect::<Vec<Entry>>().await.unwrap(), []);
    println!("did the job");
}

#[test]
fn a_clear_of_many_directories() {
    let root = directory();
    for n in 0..1000 {
        std::fs::create_dir_all(root.path().join(format!("{n}/below"))).unwrap();
        std::fs::write(root.path().join(format!("{n}/below/value")), "").unwrap();
    }
    // Two hundred and fifty directories below one another.
    let deepest = root.path().join("d/".repeat(250));
    std::fs::create_dir_all(&deepest).unwrap();
    std::fs::write(deepest.join("value"), "").unwrap();
    run_with(40, "clear", root.path());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn clear() {
    let Some(storage) = open().await else { return };
    assert_eq!(storage.list("").await.unwrap().try_collect::<Vec<Entry>>().await.unwrap().len(), 1001);
    storage.put(format!("{}value/below", "d/".repeat(250)), "v").await.unwrap();
    storage.clear().await.unwrap();
    println!("did the job");
}

#[test]
fn a_batch_of_large_values() {
    run_with(64, "large_values", directory().path());
}

#[tokio::test]
async fn large_values() {
    let Some(storage) = open().await else { return };
    let root = std::env::var_os(ROOT).unwrap();
    for n in 0..200 {
        std::fs::File::create(Path::new(&root).join(n.to_string())).unwrap().set_len(3 << 20).unwrap();
    }
    let items = (0..200).map(|n| (storage_core::Key::parse(&n.to_string()).unwrap(), GetOptions::new()));
    let mut objects = storage_core::StorageBackend::get_batch(&**storage.backend(), items.collect()).await.unwrap();
    // All begun, none ended.
    storage.put("150", "another").await.unwrap();
    let replaced = objects.swap_remove(150).unwrap().unwrap().body.bytes(u64::MAX).await.unwrap_err();
    assert_eq!(replaced.kind(), storage_core::ErrorKind::Conflict);
    for object in objects {
        let object = object.unwrap().unwrap();
        let mut pieces = object.body.into_stream();
        let mut size = 0;
        while let Some(piece) = pieces.next().await {
            size += piece.unwrap().len() as u64;
        }
        assert_eq!(size, object.entry.size);
    }
    println!("did the job");
}
