//! Directories with 100,000 files, and names and keys of the greatest length.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use futures_util::TryStreamExt;
use storage_core::{ByteRange, ErrorKind, GetOptions, Key, ListOptions, Storage, StorageBackend};
use storage_fs::{Config, Fs};

const ROOT: &str = "STORAGE_FS_ROOT";
const FILES: usize = 100_000;
/// How much the peak of a process's memory may grow while it lists, in KiB. A directory's names must be sorted, so the largest
/// directory lies in memory; what lies elsewhere does not.
const ONE_DIRECTORY: usize = 16 * 1024;
const NESTED: usize = 4 * 1024;

/// In memory where there is such a place, since this is about numbers and not about a disk.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Lists everything in a process of its own, and gives by how many KiB its peak of memory grew, if that can be known.
fn list_in_child(root: &Path) -> Option<usize> {
    let me = std::env::current_exe().unwrap();
    let child = Command::new(me).args(["--exact", "listing", "--nocapture", "--quiet"]).env(ROOT, root).output();
    let child = child.unwrap();
    assert!(child.status.success(), "{child:?}");
    let said = String::from_utf8(child.stdout).unwrap();
    let grown = said.lines().find_map(|line| line.split_once("grown by ")).expect("the child says how much");
    eprintln!("{}: {}", root.display(), grown.1);
    grown.1.strip_suffix(" KiB")?.parse().ok()
}

#[tokio::test]
async fn listing() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut config = Config::default();
    config.root = root.into();
    config.read_only = true;
    let storage = Storage::new(Fs::connect(config).await.unwrap());
    // What a listing needs at any rate is there before.
    storage.list_with(ListOptions::new().prefix("none/")).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    let before = peak();
    let (mut count, mut last) = (0, String::new());
    let mut entries = storage.list("").await.unwrap();
    while let Some(entry) = entries.try_next().await.unwrap() {
        assert!(entry.key.as_str() > last.as_str(), "{:?} comes after {last:?}", entry.key);
        assert_eq!(entry.size, 0);
        entry.key.as_str().clone_into(&mut last);
        count += 1;
    }
    assert_eq!(count, FILES);
    match (before, peak()) {
        (Some(before), Some(after)) => println!("grown by {} KiB", after - before),
        _ => println!("grown by an amount that is not known: no VmHWM in /proc/self/status"),
    }
}

/// The most memory that this process ever had, in KiB.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_hundred_thousand_files_in_one_directory() {
    let root = directory();
    fs::create_dir(root.path().join("files")).unwrap();
    for n in 0..FILES {
        // Not in the order of the names.
        File::create(root.path().join(format!("files/{:06}", n * 7919 % FILES))).unwrap();
    }
    let grown = list_in_child(root.path());
    assert!(grown.is_none_or(|grown| grown <= ONE_DIRECTORY), "{grown:?} KiB");
}

#[test]
fn a_hundred_thousand_files_in_a_thousand_directories() {
    let root = directory();
    for n in 0..1000 {
        let directory = root.path().join(format!("{}/{}", n % 10, n / 10));
        fs::create_dir_all(&directory).unwrap();
        for n in 0..FILES / 1000 {
            File::create(directory.join(format!("{n}"))).unwrap();
        }
    }
    let grown = list_in_child(root.path());
    assert!(grown.is_none_or(|grown| grown <= NESTED), "{grown:?} KiB");
}

#[tokio::test]
async fn names_and_keys_of_the_greatest_length() {
    let root = tempfile::tempdir().unwrap();
    let x = |n: usize| "x".repeat(n);
    let accented = "é".repeat(127) + "x";
    let natural = [x(255), accented, format!("y{0}/y{0}/y{0}/{1}/{2}", x(254), x(200), x(55))];
    let annexed = [x(256), x(1024), "é".repeat(512), "\u{1}".repeat(1024), format!("{}/", x(1023)), "/".repeat(1024)];
    let mut keys: Vec<String> = natural.iter().chain(&annexed).cloned().collect();
    keys.sort();
    let storage = Storage::new(Fs::open(root.path()).await.unwrap());
    for key in &keys {
        assert!(key.len() <= 1024);
        storage.put(key, key.clone()).await.unwrap();
        storage.put(key, key.clone()).await.unwrap();
    }
    for key in &natural {
        assert_eq!(fs::read(root.path().join(PathBuf::from(key))).unwrap(), key.as_bytes());
    }
    let again = Storage::new(Fs::open(root.path()).await.unwrap());
    let listed: Vec<String> =
        again.keys().await.unwrap().map_ok(|key| key.as_str().to_owned()).try_collect().await.unwrap();
    assert_eq!(listed, keys);
    for key in &keys {
        assert_eq!(again.get(key).await.unwrap().unwrap(), *key);
        again.delete(key).await.unwrap();
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the reserved directory is left");
}

/// One that would take more memory than there is, on a filesystem that stores no zeros.
#[tokio::test]
async fn a_huge_value_is_read_in_parts_only() {
    const SIZE: u64 = 1 << 40;
    let root = tempfile::tempdir().unwrap();
    let file = File::create(root.path().join("huge")).unwrap();
    if let Err(e) = file.set_len(SIZE) {
        eprintln!("not run: {e}");
        return;
    }
    file.write_all_at(b"the end", SIZE - 7).unwrap();
    let storage = Storage::new(Fs::open(root.path()).await.unwrap());
    storage.put("small", "v").await.unwrap();
    let too_large = |e: storage_core::Error| {
        assert_eq!(e.kind(), ErrorKind::TooLarge);
        assert!(e.message().contains("stream"), "{e}");
    };
    too_large(storage.get("huge").await.unwrap_err());
    too_large(storage.get_with("huge", GetOptions::new().range(1..)).await.unwrap_err());
    too_large(storage.get_batch(["small", "huge"]).await.unwrap_err());
    let backend = storage.backend();
    let whole = ["small", "huge"].map(|key| (Key::parse(key).unwrap(), GetOptions::new().prefer_buffered(true)));
    let [small, huge] = backend.get_batch(whole.into()).await.unwrap().try_into().unwrap();
    assert!(small.unwrap().is_some());
    too_large(huge.unwrap_err());
    let end = GetOptions::new().range(ByteRange::Suffix(7));
    assert_eq!(storage.get_with("huge", end).await.unwrap().unwrap(), "the end");
    let object = storage.open("huge", GetOptions::new()).await.unwrap().unwrap();
    assert_eq!(object.entry.size, SIZE);
    let first = object.body.into_stream().try_next().await.unwrap().unwrap();
    assert!(!first.is_empty() && first.iter().all(|byte| *byte == 0));
    assert_eq!(storage.list("").await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 2);
}
