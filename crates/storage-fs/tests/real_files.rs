//! A directory of real files, which other programs wrote, opened as a store: the sources of this repository.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use futures_util::TryStreamExt;
use storage_core::{GetOptions, Storage};
use storage_fs::{Config, Fs};

/// All files below a directory, by their path from there.
fn walk(directory: &Path, above: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{above}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Files and directories, without symbolic links and what is built.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))).unwrap();
        let to = to.join(entry.file_name());
        if kind.is_dir() && entry.file_name() != "target" {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            match fs::copy(entry.path(), to) {
                // Somebody works on the sources.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[tokio::test]
async fn listing_and_bytes_are_those_of_a_walk() {
    let root = tempfile::tempdir().unwrap();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.ancestors().nth(2).filter(|path| path.join("crates").is_dir());
    match workspace {
        Some(workspace) => ["crates", "conformance", "docs", "xtask"]
            .into_iter()
            .filter(|part| workspace.join(part).is_dir())
            .for_each(|part| copy(&workspace.join(part), &root.path().join(part))),
        None => copy(package, root.path()),
    }
    let mut files = BTreeMap::new();
    walk(root.path(), "", &mut files);
    println!("{} files", files.len());
    assert!(files.len() > 20);

    for read_only in [true, false] {
        let mut config = Config::default();
        config.root = root.path().to_owned();
        config.read_only = read_only;
        let storage = Storage::new(Fs::connect(config).await.unwrap());
        let mut listed = BTreeMap::new();
        let mut order = Vec::new();
        let mut entries = storage.list("").await.unwrap();
        while let Some(entry) = entries.try_next().await.unwrap() {
            let key = entry.key.as_str().to_owned();
            let object = storage.open(&key, GetOptions::new()).await.unwrap().unwrap();
            assert_eq!((object.entry.size, &object.entry.etag), (entry.size, &entry.etag), "{key}");
            let value = object.body.bytes(u64::MAX).await.unwrap();
            assert_eq!(value.len() as u64, entry.size, "{key}");
            order.push(key.clone());
            listed.insert(key, value.to_vec());
        }
        assert!(order.is_sorted());
        assert!(listed.keys().eq(files.keys()));
        assert!(listed == files, "a value is not that of its file");
    }
}
