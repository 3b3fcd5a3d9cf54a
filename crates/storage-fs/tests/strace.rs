//! What the system is asked to do, seen by `strace`: syncs in the right order, one hop for an operation, few calls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use futures_util::TryStreamExt;
use storage_core::{Condition, ErrorKind, GetOptions, Metadata, PutOptions, Storage};
use storage_fs::{Config, Durability, Fs};

const ROOT: &str = "STORAGE_FS_TRACED_ROOT";
const DURABILITY: &str = "STORAGE_FS_TRACED_DURABILITY";
/// How many entries the traced listing has.
const ENTRIES: usize = 100;
/// The most calls that the README promises, for a value of 4 KiB in a directory that exists.
const MOST_CALLS: [(&str, usize); 5] =
    [("get", 6), ("stat", 4), ("put", 24), ("delete", 19), ("list", 4 * ENTRIES + 21)];

/// The operations, each begun by a call that no storage makes. On its own this does nothing.
#[tokio::test]
async fn traced() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut config = Config::default();
    config.root = root.into();
    if std::env::var(DURABILITY).unwrap() == "relaxed" {
        config.durability = Durability::Relaxed;
    }
    let storage = Storage::new(Fs::connect(config).await.unwrap());
    for n in 0..ENTRIES {
        storage.put(format!("listed/{n:03}"), "v").await.unwrap();
    }
    let put = || {
        let options = PutOptions::new().metadata(Metadata::new().tag("t"));
        storage.put_with("dir/value", vec![7; 4096], options)
    };
    put().await.unwrap();
    storage.put("large", vec![1; 3 << 20]).await.unwrap();
    begin("put new");
    storage.put("new/below/value", "v").await.unwrap();
    begin("put");
    put().await.unwrap();
    begin("get");
    storage.get("dir/value").await.unwrap().unwrap();
    begin("stat");
    storage.stat("dir/value").await.unwrap().unwrap();
    begin("list");
    let listed: Vec<_> = storage.list("listed/").await.unwrap().try_collect().await.unwrap();
    begin("keys");
    let keys: Vec<_> = storage.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys.len(), ENTRIES + 3);
    begin("pieces");
    let large = storage.open("large", GetOptions::new()).await.unwrap().unwrap();
    assert_eq!(large.body.bytes(u64::MAX).await.unwrap().len(), 3 << 20);
    begin("delete");
    storage.delete("dir/value").await.unwrap();
    begin("delete again");
    storage.delete("dir/value").await.unwrap();
    begin("delete nothing");
    storage.delete("listed/none").await.unwrap();
    begin("delete nothing in a batch");
    storage.delete_batch(["listed/none", "listed/neither"]).await.unwrap();
    begin("clear nothing");
    storage.clear_prefix("listed/none").await.unwrap();
    begin("create again");
    storage.put_with("listed/000", "v", PutOptions::new().condition(Condition::IfAbsent)).await.unwrap_err();
    begin("update what is not there");
    let stale = PutOptions::new().condition(Condition::IfMatch("stale".to_owned().into()));
    storage.put_with("listed/none", "v", stale).await.unwrap_err();
    begin("beside a key below");
    storage.put("listed", "v").await.unwrap();
    begin("end");
    assert_eq!(listed.len(), ENTRIES);
}

fn begin(operation: &str) {
    let _ = fs::metadata(format!("/begin/{operation}"));
}

/// A system call on something below the root.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
    /// Calls of one hop have the same number: one thread made them without waking or awaiting another in between.
    hop: usize,
}

/// Runs the operations under `strace`, and gives the calls of each; those of opening are under the empty name.
fn trace(durability: &str) -> Option<(PathBuf, BTreeMap<String, Vec<Call>>)> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().canonicalize().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let traced = Command::new("strace")
        .args(["-f", "-y", "-s", "64", "-e", "trace=%file,%desc,futex", "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced"])
        .env(ROOT, &path)
        .env(DURABILITY, durability)
        .output();
    match traced {
        Ok(output) if output.status.success() => {}
        // There is no such program, or it may not trace.
        other => {
            eprintln!("not run: {other:?}");
            return None;
        }
    }
    let log = fs::read(log.path()).unwrap();
    Some((path.clone(), parse(&String::from_utf8_lossy(&log), &path)))
}

fn parse(log: &str, root: &Path) -> BTreeMap<String, Vec<Call>> {
    let root = root.to_str().unwrap();
    let mut operations: BTreeMap<String, Vec<Call>> = BTreeMap::new();
    let (mut operation, mut thread, mut hop) = (String::new(), "", 0);
    for line in log.lines() {
        let Some((on, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        if let Some((_, begun)) = arguments.split_once("\"/begin/") {
            operation = begun.split('"').next().unwrap().to_owned();
        }
        if name == "futex" && on == thread {
            hop += 1;
        }
        // The standard library asks for the flags before it closes, in debug builds only.
        if !arguments.contains(root) || name == "fcntl" && arguments.contains("F_GETFD") || name == "execve" {
            continue;
        }
        if on != thread {
            (thread, hop) = (on, hop + 1);
        }
        let call = Call { name: name.to_owned(), arguments: arguments.to_owned(), hop };
        operations.entry(operation.clone()).or_default().push(call);
    }
    operations
}

/// Where the first call is that has this name and these words.
fn position(calls: &[Call], name: &str, words: &str) -> usize {
    let found = calls.iter().position(|call| call.name.starts_with(name) && call.arguments.contains(words));
    found.unwrap_or_else(|| panic!("no {name} of {words:?} in {calls:#?}"))
}

#[test]
fn what_is_acknowledged_was_synced_in_order() {
    let Some((root, operations)) = trace("full") else { return };
    let root = root.display();
    for (operation, directories) in [("put", &["/dir"][..]), ("put new", &["/new/below", "/new", ""])] {
        let calls = &operations[operation];
        let written = position(calls, "write", "/.storage/staging/");
        let attribute = position(calls, "fsetxattr", "/.storage/staging/");
        let synced = position(calls, "fsync", "/.storage/staging/");
        let renamed = position(calls, "renameat", "\"value\"");
        assert!(written < synced && attribute < synced && synced < renamed, "{operation}: {calls:#?}");
        for directory in directories {
            let directory = format!("<{root}{directory}>");
            let synced = calls.iter().rposition(|call| call.name == "fsync" && call.arguments.contains(&directory));
            assert!(synced > Some(renamed), "{operation}: {directory} is not synced after the rename: {calls:#?}");
        }
    }
    let calls = &operations["delete"];
    let removed = position(calls, "unlinkat", "\"value\"");
    let synced = position(calls, "fsync", &format!("<{root}/dir>"));
    assert!(removed < synced, "{calls:#?}");
    // What another has done and not yet synced must be durable before an answer rests on it.
    for (operation, directories) in [
        ("delete again", &["", "/.storage/annex"][..]),
        ("delete nothing", &["/listed", "/.storage/annex"]),
        ("delete nothing in a batch", &["/listed", "/.storage/annex"]),
        ("clear nothing", &["/listed", "/.storage/annex"]),
        ("create again", &["/listed"]),
        ("update what is not there", &["/listed", "/.storage/annex"]),
        ("beside a key below", &["", "/.storage/annex"]),
    ] {
        let calls = &operations[operation];
        for directory in directories {
            position(calls, "fsync", &format!("<{root}{directory}>"));
        }
        let looked = calls.iter().filter(|call| call.name.starts_with("fsync")).count();
        assert!(looked <= directories.len() + 1, "{operation}: {calls:#?}");
    }
}

#[test]
fn relaxed_syncs_nothing() {
    let Some((_, operations)) = trace("relaxed") else { return };
    let synced = operations.values().flatten().filter(|call| call.name.contains("sync"));
    assert_eq!(synced.count(), 0);
    position(&operations["put"], "renameat", "\"value\"");
}

#[test]
fn an_operation_is_one_hop_and_few_calls() {
    let Some((_, operations)) = trace("full") else { return };
    for (operation, most) in MOST_CALLS {
        let calls = &operations[operation];
        let hops = hops(calls);
        println!("{operation}: {} calls, {hops} hops", calls.len());
        assert!(calls.len() <= most, "{operation}: {} calls, more than {most}: {calls:#?}", calls.len());
        assert_eq!(hops, 1, "{operation}: {calls:#?}");
    }
    let read = |operation: &str| operations[operation].iter().filter(|call| call.name.contains("getxattr")).count();
    assert_eq!((read("list"), read("keys")), (ENTRIES, 0), "keys need nothing that lies beside a value");
    // That hops are told apart: this opens, and then reads three pieces.
    assert!(hops(&operations["pieces"]) >= 4, "{:#?}", operations["pieces"]);
}

/// On its own this does nothing.
#[tokio::test]
async fn connects_without_syncs_of_directories() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let mut config = Config::default();
    config.root = PathBuf::from(root).join("new");
    let e = Fs::connect(config.clone()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(e.message().contains("durability=relaxed"), "{e}");
    config.durability = Durability::Relaxed;
    Storage::new(Fs::connect(config.clone()).await.unwrap()).put("k", "v").await.unwrap();
    config.durability = Durability::Full;
    assert_eq!(Fs::connect(config).await.unwrap_err().kind(), ErrorKind::Config);
    println!("did the job");
}

#[test]
fn a_filesystem_that_cannot_sync_directories_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let run = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EINVAL"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "connects_without_syncs_of_directories", "--nocapture"])
        .env(ROOT, root.path())
        .output();
    match run {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("did the job") => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("panicked") => panic!("{output:?}"),
        other => eprintln!("not run: {other:?}"),
    }
}

fn hops(calls: &[Call]) -> usize {
    calls.iter().map(|call| call.hop).collect::<BTreeSet<_>>().len()
}
