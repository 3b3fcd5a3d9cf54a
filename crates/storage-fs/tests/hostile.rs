//! Surroundings that turn against a store: full, read-only, closed, deleted. Each test says when it could not run here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use common::{list, only, writes};
use futures_util::stream;
use storage_core::{Body, ErrorKind, GetOptions, Metadata, PutOptions, Result, Storage};
use storage_fs::{Config, Fs};

/// What a child process does, and where.
const JOB: &str = "STORAGE_FS_JOB";
const ROOT: &str = "STORAGE_FS_ROOT";
/// A user without rights.
const NOBODY: u32 = 65_534;

async fn open(root: &Path) -> Storage {
    Storage::new(Fs::open(root).await.unwrap())
}

fn read_only(root: &Path) -> Config {
    let mut config = Config::default();
    config.root = root.to_owned();
    config.read_only = true;
    config
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a job in a child process behind other programs.
fn run(behind: &[&str], job: &str, root: &Path) {
    let me = std::env::current_exe().unwrap();
    let mut words = behind.iter().map(|word| (*word).to_owned()).chain([me.to_str().unwrap().to_owned()]);
    let mut child = Command::new(words.next().unwrap());
    child.args(words).args(["--exact", "job", "--nocapture", "--quiet"]).current_dir("/");
    match child.env(JOB, job).env(ROOT, root).output() {
        Err(e) => eprintln!("{job}: not run: {behind:?}: {e}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if let Some(why) = said.lines().find(|line| line.starts_with("not run:")) {
                eprintln!("{job}: {why}");
            } else if !said.contains("did the job") && !said.contains("panicked") {
                eprintln!("{job}: not run: {said}");
            } else {
                assert!(output.status.success(), "{said}");
            }
        }
    }
}

/// Runs a job in a child process with mounts of its own, which go when it ends.
fn run_with_mounts(job: &str, root: &Path) {
    let behind: &[&str] = if is_root() { &["unshare", "--mount"] } else { &["unshare", "--map-root-user", "--mount"] };
    run(behind, job, root);
}

#[tokio::test]
async fn job() {
    let (Ok(job), Some(root)) = (std::env::var(JOB), std::env::var_os(ROOT)) else {
        return;
    };
    let root = Path::new(&root);
    match job.as_str() {
        "full" => full(root).await,
        "mounted read-only" => mounted_read_only(root).await,
        "mounted over" => mounted_over(root).await,
        "closed" => closed(root).await,
        other => panic!("{other:?}"),
    }
    println!("did the job");
}

/// Mounts something, or ends the process.
fn mount(arguments: &[&str], on: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(on).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("not run: mount {arguments:?}: {mounted:?}");
        std::process::exit(0);
    }
}

#[test]
fn a_full_disk_keeps_what_is_there() {
    run_with_mounts("full", tempfile::tempdir().unwrap().path());
}

async fn full(root: &Path) {
    mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], root);
    let storage = open(root).await;
    let old = vec![1_u8; 100_000];
    let metadata = Metadata::new().tag("old");
    storage.put_with("old", old.clone(), PutOptions::new().metadata(metadata.clone())).await.unwrap();
    storage.put("other", old.clone()).await.unwrap();
    let large = || vec![2_u8; 2 << 20];
    let pieces = || Body::stream(stream::iter((0..32).map(|_| Ok(Bytes::from(vec![3; 1 << 16])))));
    let batch = [("old", large(), PutOptions::new())];
    let failed = [
        storage.put("old", large()).await.map(drop),
        storage.put("old", pieces()).await.map(drop),
        storage.put("new", large()).await.map(drop),
        storage.put_batch_with(batch, Default::default()).await.and_then(only),
    ];
    for failed in failed {
        let e = failed.unwrap_err();
        assert!(e.kind() == ErrorKind::Unavailable && !e.is_ambiguous(), "{e:?}");
        assert!(e.message().contains("disk is full"), "{e}");
    }
    // To the last byte.
    fs::write(root.join("filler"), large()).unwrap_err();
    assert_eq!(storage.put("small", "x").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let object = storage.open("old", GetOptions::new()).await.unwrap().unwrap();
    assert_eq!(**object.entry.metadata.as_ref().unwrap(), metadata);
    assert_eq!(object.body.bytes(u64::MAX).await.unwrap(), old);
    assert_eq!(fs::read_dir(root.join(".storage/staging")).unwrap().count(), 1, "nothing stays staged");
    assert_eq!(list(&storage).await, ["filler", "old", "other"]);
    // One can still open it, and make room.
    let again = open(root).await;
    again.delete("other").await.unwrap();
    again.put("small", "x").await.unwrap();
    again.clear().await.unwrap();
    again.put("large", vec![4; 500_000]).await.unwrap();
    assert_eq!(list(&storage).await, ["large"]);
}

#[test]
fn a_filesystem_mounted_read_only_can_be_read() {
    run_with_mounts("mounted read-only", tempfile::tempdir().unwrap().path());
}

async fn mounted_read_only(root: &Path) {
    let storage = open(root).await;
    storage.put("a", "1").await.unwrap();
    storage.put("odd//key", "2").await.unwrap();
    drop(storage);
    mount(&["--bind", root.to_str().unwrap()], root);
    mount(&["-o", "remount,bind,ro"], root);
    let e = Fs::open(root).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(e.message().contains("read_only"), "{e}");
    can_only_be_read(root).await;
}

#[test]
fn a_filesystem_mounted_over_the_root_takes_no_writes() {
    run_with_mounts("mounted over", tempfile::tempdir().unwrap().path());
}

async fn mounted_over(root: &Path) {
    let storage = open(root).await;
    storage.put("k", "v").await.unwrap();
    mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], root);
    for (what, result) in writes(&storage, "k").await {
        assert_eq!(result.expect_err(what).kind(), ErrorKind::Unavailable, "{what}");
    }
    assert!(!storage.is_connected().await);
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    assert!(Command::new("umount").arg(root).status().unwrap().success());
    storage.put("k", "w").await.unwrap();
    assert!(storage.is_connected().await);
}

#[tokio::test]
async fn a_store_opened_to_read_refuses_writes_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let storage = open(root.path()).await;
    storage.put("a", "1").await.unwrap();
    storage.put("odd//key", "2").await.unwrap();
    can_only_be_read(root.path()).await;
    // It sees what others write.
    let reader = Storage::new(Fs::connect(read_only(root.path())).await.unwrap());
    storage.put("a", "3").await.unwrap();
    assert_eq!(reader.get("a").await.unwrap().unwrap(), "3");
}

/// A store with the keys `a` and `odd//key`.
async fn can_only_be_read(root: &Path) {
    let storage = Storage::new(Fs::connect(read_only(root)).await.unwrap());
    assert!(storage.is_connected().await);
    for (what, result) in writes(&storage, "a").await {
        let e = result.expect_err(what);
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{what}: {e}");
        assert!(e.message().contains("read_only"), "{what}: {e}");
    }
    assert_eq!(list(&storage).await, ["a", "odd//key"]);
    assert_eq!(storage.get("a").await.unwrap().unwrap(), "1");
    assert_eq!(storage.get("odd//key").await.unwrap().unwrap(), "2");
    assert_eq!(storage.stat("none").await.unwrap(), None);
}

#[tokio::test]
async fn any_directory_can_be_read_without_a_trace() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("dir")).unwrap();
    fs::write(root.path().join("dir/File"), "plain").unwrap();
    let storage = Storage::new(Fs::connect(read_only(root.path())).await.unwrap());
    assert_eq!(list(&storage).await, ["dir/File"]);
    assert_eq!(storage.get("dir/File").await.unwrap().unwrap(), "plain");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    let e = Fs::connect(read_only(&root.path().join("none"))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[test]
fn a_closed_subdirectory_does_not_close_the_rest() {
    let root = tempfile::tempdir().unwrap();
    // The administrator may do everything, so the job is done by somebody else.
    let behind: &[&str] =
        if is_root() { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] } else { &["env"] };
    if is_root() {
        chown(root.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    run(behind, "closed", root.path());
}

async fn closed(root: &Path) {
    let storage = open(root).await;
    storage.put("closed/a", "1").await.unwrap();
    storage.put("open/a", "2").await.unwrap();
    let mode = |mode| fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(mode)).unwrap();
    let denied = |what: &str, result: Result<()>| {
        let e = result.expect_err(what);
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{what}: {e}");
    };
    // Neither to be entered nor to be listed.
    mode(0o000);
    denied("get", storage.get("closed/a").await.map(drop));
    denied("stat", storage.stat("closed/a").await.map(drop));
    denied("put", storage.put("closed/a", "3").await.map(drop));
    denied("delete", storage.delete("closed/a").await);
    assert_eq!(list(&storage).await, ["open/a"]);
    // To be read.
    mode(0o555);
    assert_eq!(storage.get("closed/a").await.unwrap().unwrap(), "1");
    denied("put", storage.put("closed/a", "3").await.map(drop));
    denied("put", storage.put("closed/b", "3").await.map(drop));
    denied("delete", storage.delete("closed/a").await);
    denied("clear", storage.clear_prefix("closed/").await);
    assert_eq!(list(&storage).await, ["closed/a", "open/a"]);
    // To be entered, not to be listed: what lies there would stay.
    mode(0o300);
    for prefix in ["closed/", "closed", "c"] {
        denied(prefix, storage.clear_prefix(prefix).await);
    }
    assert_eq!(storage.get("closed/a").await.unwrap().unwrap(), "1");
    mode(0o755);
    storage.delete("closed/a").await.unwrap();
    assert_eq!(list(&storage).await, ["open/a"]);
    assert_eq!(fs::read_dir(root.join(".storage/staging")).unwrap().count(), 1, "nothing stays staged");
}
