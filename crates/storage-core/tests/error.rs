//! Errors: codes, one line for people, and nothing lost on the way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, error::Error as _, sync::Arc, time::Duration};

use storage_core::{Error, ErrorKind, Key};

#[test]
fn codes_are_unique_and_the_serde_names() {
    let codes: BTreeSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(codes.len(), ErrorKind::ALL.len());
    for kind in ErrorKind::ALL.iter().copied() {
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(json, format!("\"{}\"", kind.code()));
        assert_eq!(serde_json::from_str::<ErrorKind>(&json).unwrap(), kind);
        assert_eq!(Error::new(kind, "").code(), kind.code());
    }
}

#[test]
fn what_can_be_tried_again() {
    let retryable: Vec<_> = ErrorKind::ALL.iter().copied().filter(|kind| kind.is_retryable()).collect();
    assert_eq!(retryable, [ErrorKind::Conflict, ErrorKind::RateLimited, ErrorKind::Timeout, ErrorKind::Unavailable]);
}

#[test]
fn one_line_says_who_what_where_and_why() {
    let (key, backend): (_, Arc<str>) = (Key::parse("k\"\n").unwrap(), "memory".into());
    let bare = || Error::new(ErrorKind::Other, "why");
    assert_eq!(bare().to_string(), "why");
    assert_eq!(bare().with_backend(&backend).to_string(), "memory: why");
    assert_eq!(bare().with_operation("list").to_string(), "list: why");
    assert_eq!(bare().with_key(&key).to_string(), r#""k\"\n": why"#);
    let full = bare().with_key(&key).with_operation("put").with_backend(&backend);
    assert_eq!(full.to_string(), r#"memory: put "k\"\n": why"#);
    assert_eq!(full.message(), "why");
}

#[test]
fn the_first_particulars_stay() {
    let (one, two) = (Key::parse("1").unwrap(), Key::parse("2").unwrap());
    let error = Error::closed()
        .with_key(&one)
        .with_key(&two)
        .with_operation("get")
        .with_operation("put")
        .with_backend(&"inner".into())
        .with_backend(&"outer".into());
    assert_eq!(error.key(), Some(&one));
    assert_eq!(error.operation(), Some("get"));
    assert_eq!(error.backend(), Some("inner"));
}

#[test]
fn cause_wait_and_outcome_are_kept() {
    let cause = std::io::Error::other("disk full");
    let error = Error::new(ErrorKind::Unavailable, "cannot write").with_source(cause);
    assert!(!error.is_ambiguous() && error.is_retryable());
    let error = error.ambiguous().with_retry_after(Duration::from_secs(2));
    assert!(error.is_ambiguous());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    assert_eq!(error.source().unwrap().to_string(), "disk full");
    assert_eq!(error.to_string(), "cannot write");
    assert_eq!(format!("{error:?}"), "cannot write (unavailable, outcome unknown): disk full");
}

#[test]
fn an_error_is_one_pointer_wide() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    fn send_and_sync<T: Send + Sync + 'static>() {}
    send_and_sync::<Error>();
}

#[test]
fn the_documentation_lists_every_kind_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    for kind in ErrorKind::ALL.iter().copied() {
        let retryable = if kind.is_retryable() { "yes" } else { "no" };
        let row = format!("| `{}` | `{kind:?}` | {retryable} | ", kind.code());
        assert_eq!(text.matches(&row).count(), 1, "{row}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("| `")).count(), ErrorKind::ALL.len());
}

#[test]
fn a_clone_says_the_same_and_shares_the_cause() {
    let key = Key::parse("k").unwrap();
    let cause = std::io::Error::other("disk full");
    let error = Error::new(ErrorKind::Timeout, "no answer")
        .with_key(&key)
        .with_operation("put")
        .with_backend(&"fs".into())
        .with_retry_after(Duration::from_secs(2))
        .with_source(cause)
        .ambiguous();
    let clone = error.clone();
    assert_eq!(format!("{error:?}"), format!("{clone:?}"));
    assert_eq!(clone.retry_after(), Some(Duration::from_secs(2)));
    let io = |e: &Error| std::ptr::from_ref(e.source().unwrap().downcast_ref::<std::io::Error>().unwrap());
    assert_eq!(io(&error), io(&clone));
}
