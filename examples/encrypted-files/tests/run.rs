//! The program as its user runs it, on a directory and on a database.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=";
const OTHER: &str = "3031323334353637383961626364656630313233343536373839616263646566";

fn run(key: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_encrypted-files"));
    command.env_remove("FILES_KEY").envs(key.map(|key| ("FILES_KEY", key))).args(args).output().unwrap()
}

fn ok(args: &[&str]) -> Vec<u8> {
    let output = run(Some(KEY), args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    output.stdout
}

fn refused(key: Option<&str>, args: &[&str]) -> String {
    let output = run(key, args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{args:?} has written something");
    String::from_utf8(output.stderr).unwrap()
}

/// Whether the bytes are anywhere in the files of a directory.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => holds(&path, bytes),
        false => fs::read(path).unwrap().windows(bytes.len()).any(|window| window == bytes),
    })
}

fn six_calls(uri: &str, dir: &Path, file: &str) {
    ok(&[uri, "set", "letters/ada", file]);
    ok(&[uri, "set", "letters/bob", file]);
    ok(&[uri, "set", "notes", file]);
    assert_eq!(ok(&[uri, "get", "letters/ada"]), fs::read(file).unwrap());
    assert!(!holds(dir, b"dear diary"), "something is not encrypted");
    assert_eq!(ok(&[uri, "keys", "letters/"]), b"letters/ada\nletters/bob\n");

    assert!(refused(Some(OTHER), &[uri, "get", "notes"]).contains("does not authenticate"));
    assert!(refused(None, &[uri, "get", "notes"]).contains("FILES_KEY"));
    let short = refused(Some("hunter2"), &[uri, "get", "notes"]);
    assert!(short.contains("32 bytes") && !short.contains("hunter2"), "{short}");
    assert!(refused(Some(KEY), &[uri, "get", "letters/eve"]).contains("there is no file"));
    assert!(refused(Some(KEY), &[uri, "put", "notes", file]).contains("usage"));

    ok(&[uri, "delete", "letters/ada"]);
    assert_eq!(run(Some(KEY), &[uri, "has", "letters/ada"]).status.code(), Some(1));
    ok(&[uri, "has", "letters/bob"]);
    ok(&[uri, "clear", "letters/"]);
    assert_eq!(ok(&[uri, "keys"]), b"notes\n");
    ok(&[uri, "clear"]);
    assert!(ok(&[uri, "keys"]).is_empty());
}

#[test]
fn the_six_calls_on_a_directory_and_on_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("diary.txt");
    // A number in each line, so that compression alone would not hide the text in the first block.
    let text: String = (0..50_000).map(|line| format!("{line} dear diary {}\n", line * 7919 % 10_007)).collect();
    fs::write(&file, text).unwrap();
    let store = tempfile::tempdir().unwrap();
    for uri in [format!("fs:{}/files", store.path().display()), format!("sqlite:{}/a.db", store.path().display())] {
        six_calls(&uri, store.path(), file.to_str().unwrap());
    }
}
