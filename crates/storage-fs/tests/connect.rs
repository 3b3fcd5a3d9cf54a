//! Opening, closing, and what is wrong with a root.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_core::{ErrorKind, Storage};
use storage_fs::{Config, Durability, Fs, FsFactory};

async fn refused(config: Config) -> ErrorKind {
    let e = Fs::connect(config).await.unwrap_err();
    assert!(!e.message().is_empty());
    e.kind()
}

#[tokio::test]
async fn a_root_must_be_a_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.root = temporary.path().join("file");
    fs::write(&config.root, "").unwrap();
    assert_eq!(refused(config.clone()).await, ErrorKind::Config);
    config.root = temporary.path().join("file/below");
    assert_eq!(refused(config.clone()).await, ErrorKind::Config);
    config.root = temporary.path().join("missing/below");
    config.create = false;
    assert_eq!(refused(config.clone()).await, ErrorKind::NotFound);
    config.create = true;
    Fs::connect(config).await.unwrap();
    fs::create_dir_all(temporary.path().join("newer/.storage")).unwrap();
    fs::write(temporary.path().join("newer/.storage/format"), "storage-fs 2\n").unwrap();
    let e = Fs::open(temporary.path().join("newer")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_root_on_a_read_only_or_foreign_filesystem_is_refused() {
    // In the last two nothing can be made: what is missing stays missing.
    let roots = ["/proc/self", "/sys/kernel", "/proc/nothing", "/proc/nothing/below"];
    for (root, kind) in roots.map(|root| (root, ErrorKind::Config)) {
        let e = Fs::open(root).await.unwrap_err();
        let kinds = [kind, ErrorKind::PermissionDenied, ErrorKind::NotFound];
        assert!(kinds.contains(&e.kind()), "{root}: {e:?}");
    }
}

#[tokio::test]
async fn a_root_without_permission_is_refused() {
    if std::env::var_os("STORAGE_FS_ROOT").is_some() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let me = std::env::current_exe().unwrap();
    // Root may do everything, so the test runs in a child that is nobody, if that can be had.
    let child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(me)
        .args(["--exact", "as_nobody", "--nocapture"])
        .env("STORAGE_FS_ROOT", root.path())
        .output();
    match child {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("refused"), "{output:?}");
        }
        // There is no such program, or nobody may not run this test.
        other => println!("not run: {other:?}"),
    }
}

#[tokio::test]
async fn as_nobody() {
    if let Some(root) = std::env::var_os("STORAGE_FS_ROOT") {
        let e = Fs::open(root).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied);
        println!("refused");
    }
}

#[tokio::test]
async fn disconnecting_closes_all_clones() {
    let root = tempfile::tempdir().unwrap();
    let fs = Fs::open(root.path()).await.unwrap();
    let (one, other) = (Storage::new(fs.clone()), Storage::new(fs));
    assert!(other.is_connected().await);
    one.disconnect().await.unwrap();
    assert!(!other.is_connected().await);
    assert_eq!(other.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(other.list("").await.err().map(|e| e.kind()), Some(ErrorKind::Closed));
}

#[tokio::test]
async fn the_factory_takes_location_and_options() {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join("store");
    let connect = |uri: String| async move {
        let config = ConnectionConfig::new(uri);
        FsFactory.connect(&config, &StorageContext::default()).await
    };
    let uri = format!("fs:{}?durability=relaxed", root.display());
    connect(uri).await.unwrap();
    assert!(root.join(".storage/format").exists());
    for wrong in ["?durability=some", "?unknown=1", "?root=elsewhere"] {
        let e = connect(format!("file://{}{wrong}", root.display())).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Config, "{wrong}");
    }
    assert_eq!(Config::default().durability, Durability::Full);
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let root = tempfile::tempdir().unwrap();
    let opened = std::pin::pin!(Fs::open(root.path()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match opened.poll(&mut context) {
        std::task::Poll::Ready(Err(e)) => assert_eq!(e.kind(), ErrorKind::Other),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_root_that_is_no_path_is_a_mistake_in_the_configuration() {
    let temporary = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("circle", temporary.path().join("circle")).unwrap();
    let long = "l".repeat(300);
    for create in [true, false] {
        for name in ["a\0b", "circle", "circle/below", &long] {
            let mut config = Config::default();
            config.root = temporary.path().join(name);
            config.create = create;
            assert_eq!(refused(config).await, ErrorKind::Config, "{name:?}, create {create}");
        }
    }
    let config = ConnectionConfig::new("fs:a%00b");
    let e = FsFactory.connect(&config, &StorageContext::default()).await.map(drop).unwrap_err();
    assert!(e.kind() == ErrorKind::Config && !e.message().contains('\0'), "{e:?}");
}
