//! Over a directory: what others do to it is noticed through the layer as well.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures_util::TryStreamExt;
use storage_core::{Entry, ErrorKind, GetOptions, PutOptions, Result, Storage, VersionId};
use storage_fs::{Config, Durability, Fs};
use storage_layer_versioned::VersionedLayer;

const ROOT: &str = "STORAGE_VERSIONED_ROOT";

async fn open(root: &Path) -> Storage {
    let mut config = Config::default();
    config.root = root.to_owned();
    config.durability = Durability::Relaxed;
    Storage::new(Fs::connect(config).await.unwrap()).layer(VersionedLayer::new())
}

async fn versions(storage: &Storage) -> Vec<Entry> {
    storage.versions("k").await.unwrap().try_collect().await.unwrap()
}

/// The files of older versions of the key `k`, oldest first.
fn older(root: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root.join(".versions/h/1/k")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

fn damage(file: &Path) {
    rustix::fs::setxattr(file, "user.storage.v1", b"damaged", rustix::fs::XattrFlags::empty()).unwrap();
}

#[tokio::test]
async fn a_write_notices_a_root_that_is_gone() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let storage = open(&root).await;
    storage.put("k", "1").await.unwrap();
    storage.put("k", "2").await.unwrap();
    fs::rename(&root, outer.path().join("elsewhere")).unwrap();
    fs::create_dir(&root).unwrap();
    let writes = [
        storage.put("k", "3").await.map(drop),
        storage.put("new", "3").await.map(drop),
        storage.delete("k").await,
        storage.copy("k", "copy").await.map(drop),
        storage.rename("k", "renamed").await.map(drop),
        storage.clear().await,
    ];
    for (n, result) in writes.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable, "{n}");
    }
    assert!(!storage.is_connected().await);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    fs::remove_dir(&root).unwrap();
    fs::rename(outer.path().join("elsewhere"), &root).unwrap();
    storage.put("k", "3").await.unwrap();
    assert_eq!(versions(&storage).await.len(), 3);
}

#[tokio::test]
async fn a_damaged_version_hides_no_other() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    for value in ["1", "2", "3"] {
        storage.put("k", value).await.unwrap();
    }
    let sound = versions(&storage).await;
    let id = |n: usize| sound[n].version.clone().unwrap();
    let read = |version: VersionId| storage.get_with("k", GetOptions::new().version(version));
    let [oldest, older] = older(root.path()).try_into().unwrap();

    // An older one is damaged: it is listed as such, and can be deleted.
    damage(&older);
    let seen = versions(&storage).await;
    assert_eq!(seen.iter().map(|entry| entry.damaged.is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(read(id(1)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(read(id(2)).await.unwrap().unwrap(), "1");
    storage.delete_with("k", storage_core::DeleteOptions::new().version(id(1))).await.unwrap();
    assert_eq!(versions(&storage).await.len(), 2);
    assert!(oldest.exists() && !older.exists());

    // The value is damaged: older ones can be read, and put back.
    damage(&root.path().join("k"));
    let seen = versions(&storage).await;
    assert_eq!(seen.iter().map(|entry| entry.damaged.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(read(id(0)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(read(id(2)).await.unwrap().unwrap(), "1");
    storage.copy_with("k", "k", storage_core::CopyOptions::new().version(id(2))).await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "1");
}

#[test]
fn few_file_descriptors_suffice_for_many_directories() {
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh");
    child.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "batches", "--nocapture", "--quiet"]).env(ROOT, root.path());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("did the job"), "{said}");
}

#[tokio::test]
async fn batches() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let storage = open(Path::new(&root)).await;
    for value in ["1", "2"] {
        let items = (0..200).map(|n| (format!("{n}/k"), value, PutOptions::new()));
        let written = storage.put_batch_with(items, Default::default()).await.unwrap();
        written.into_iter().collect::<Result<Vec<_>>>().unwrap();
    }
    storage.clear().await.unwrap();
    println!("did the job");
}
