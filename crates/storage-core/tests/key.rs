//! What a key may be.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_core::{ErrorKind, IntoKey, Key};

#[test]
fn one_to_1024_bytes() {
    for legal in ["a".to_owned(), "a".repeat(1024), "é".repeat(512)] {
        assert_eq!(Key::parse(&legal).unwrap().as_str(), legal);
    }
    for wrong in [String::new(), "a".repeat(1025), "é".repeat(513)] {
        assert_eq!(Key::parse(&wrong).unwrap_err().kind(), ErrorKind::InvalidKey);
    }
}

#[test]
fn no_nul_anywhere() {
    for wrong in ["\0", "a\0", "\0a", "a\0b"] {
        assert_eq!(Key::parse(wrong).unwrap_err().kind(), ErrorKind::InvalidKey);
    }
}

#[test]
fn everything_else_is_legal_and_kept() {
    let weird = [
        " ",
        ".",
        "..",
        "../a",
        "/",
        "//",
        "/a",
        "a/",
        "a//b",
        "%2F",
        "a%00",
        "#",
        "?",
        "\\",
        "_",
        "*",
        "\"'`",
        "\n",
        "\u{1}",
        "\u{7f}",
        "é",
        "e\u{301}",
        "🗝",
        "\u{feff}",
        "\u{10ffff}",
        "CON",
        "a:b",
    ];
    for text in weird {
        assert_eq!(Key::parse(text).unwrap().as_str(), text);
    }
    assert_ne!(Key::parse("é").unwrap(), Key::parse("e\u{301}").unwrap());
    assert_ne!(Key::parse("a").unwrap(), Key::parse("A").unwrap());
}

#[test]
fn the_order_is_bytewise() {
    let mut keys: Vec<Key> =
        ["b", "a/b", "a-b", "a", "Z", "é", "🗝", "\u{ffff}"].map(|text| Key::parse(text).unwrap()).into();
    keys.sort();
    let mut texts: Vec<&[u8]> = keys.iter().map(|key| key.as_str().as_bytes()).collect();
    assert!(texts.is_sorted());
    texts.dedup();
    assert_eq!(texts.len(), keys.len());
}

#[test]
fn every_form_becomes_the_same_key() {
    let key = Key::parse("k").unwrap();
    let text = String::from("k");
    assert_eq!("k".into_key().unwrap(), key);
    assert_eq!((&text).into_key().unwrap(), key);
    assert_eq!(text.into_key().unwrap(), key);
    assert_eq!((&key).into_key().unwrap(), key);
    assert_eq!(key.clone().into_key().unwrap(), key);
    assert_eq!(Key::try_from("k").unwrap(), key);
    assert_eq!((format!("{key}"), format!("{key:?}")), ("k".into(), "\"k\"".into()));
}
