//! The program as its user runs it, on stores with and without versions of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

#[test]
fn it_finds_the_worst_and_the_configuration_before() {
    let (docs, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = "x".repeat(161);
    for (name, text) in [
        ("good.md", "# Good\n\nShort.\n".to_owned()),
        ("bad.md", format!("No title\n{long}\n")),
        ("worse.md", format!("# Worse\n{long}\n{long}\n{long}\n")),
        ("code.rs", long.clone()),
    ] {
        fs::write(docs.path().join(name), text).unwrap();
    }
    let at = store.path().display();
    let mut uris =
        vec!["memory:".to_owned(), format!("fs:{at}/files"), format!("sqlite:{at}/a.db"), format!("sqlite:{at}/a.db")];
    if cfg!(feature = "mongodb")
        && let Some(server) = storage_conformance::server("STORAGE_TEST_SECANTUS")
    {
        let collection = format!("linter{:08x}", fastrand::u32(..));
        // The second time on what the first has left.
        uris.extend(vec![format!("{server}/storage?collection={collection}&versions=20"); 2]);
    }
    for uri in uris {
        let output = Command::new(env!("CARGO_BIN_EXE_linter")).arg(&uri).arg(docs.path()).output().unwrap();
        assert!(output.status.success(), "{uri}: {output:?}");
        let expected = "The worst by the schema \"relaxed\":\n  results/worse.md has 3\n  results/bad.md has 2\n\
                        The configuration before: Config { schema: \"strict\", shown: 3 }\n";
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{uri}");
    }
    assert!(fs::read(store.path().join("files/results/worse.md")).unwrap().starts_with(b"2: 161 characters"));
}
