//! Imports a directory of files into a storage backend, finds them again by their metadata, reads them back and verifies
//! every byte; then does the same through an encrypted stack.
//!
//! `cargo run -p quickstart -- [URI [DIRECTORY]]`
#![allow(clippy::print_stdout, reason = "it tells a person what it did")]

mod import;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

use futures_util::TryStreamExt;
use storage_core::{Comparison, GetOptions, ListItem, ListOptions, OrderBy, Query, Storage};
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_layer_retry::RetryLayer;

const USAGE: &str = "usage: quickstart [URI [DIRECTORY]]";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("quickstart: {e}");
            let mut cause = e.source();
            while let Some(e) = cause {
                eprintln!("  because: {e}");
                cause = e.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// The URI without what may be a secret in it: user, password and options.
fn shown(uri: &str) -> String {
    let place = uri.split('?').next().unwrap_or(uri);
    match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, server))) => format!("{scheme}://{server}"),
        _ => place.to_owned(),
    }
}

async fn run() -> Result<()> {
    let mut args = env::args().skip(1);
    let uri = args.next().unwrap_or_else(|| "fs:./storage".into());
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let directory = args.next().map_or_else(ours, PathBuf::from);
    if let Some(surplus) = args.next() {
        return Err(format!("`{surplus}` is one argument too many; {USAGE}").into());
    }

    let storage = storage_registry::open(&uri).await?;
    println!("Opened {}: {}.", shown(&uri), storage.info().description);
    let files = import::files(&directory)?;

    println!("\n1. As it is");
    store_and_verify(&storage, "quickstart/plain/", &files).await?;

    println!("\n2. Encrypted, with retries around it");
    let keys = StaticKeys::generate("quickstart")?;
    let encrypted = storage.clone().layer(EncryptLayer::new(keys)).layer(RetryLayer::new());
    store_and_verify(&encrypted, "quickstart/secret/", &files).await?;
    show_stored_form(&storage, &encrypted, "quickstart/secret/").await?;
    // The key was made for this run and ends with it, so nobody could ever read these values again.
    storage.clear_prefix("quickstart/secret/").await?;
    println!("  The key was only for this run, so the encrypted copies were deleted again.");

    storage.disconnect().await?;
    println!("\nThe files are in {}, under keys that begin with `quickstart/plain/`.", shown(&uri));
    Ok(())
}

async fn store_and_verify(storage: &Storage, prefix: &str, files: &[import::File]) -> Result<()> {
    storage.clear_prefix(prefix).await?;
    let mut bytes = 0;
    for file in files {
        bytes += import::put(storage, prefix, file).await?.size;
    }
    println!("  Imported {} files, {bytes} bytes, each with its metadata.", files.len());

    let options = ListOptions::new().prefix(prefix).delimited(true);
    let items: Vec<ListItem> = storage.list_with(options).await?.try_collect().await?;
    let names: Vec<_> = items.iter().map(|item| &item.position()[prefix.len()..]).collect();
    println!("  Top level: {}", names.join(" "));

    let long = Query::new()
        .prefix(prefix)
        .all_tags(["imported"])
        .field("lines", Comparison::GreaterOrEqual, 50)
        .descending(OrderBy::Field("lines".into()))
        .limit(3);
    let found: Vec<_> = storage.query(long).await?.try_collect().await?;
    println!("  The longest texts of at least 50 lines, found by a query on metadata:");
    for entry in &found {
        let lines = entry.metadata.as_ref().and_then(|m| m.fields.get("lines"));
        println!("    {} ({} lines)", entry.key, lines.map_or_else(String::new, ToString::to_string));
    }

    if let Some(largest) = files.iter().max_by_key(|file| file.size) {
        let key = format!("{prefix}{}", largest.name);
        let object = storage.open(key.as_str(), GetOptions::new()).await?;
        let object = object.ok_or("the largest file is not there")?;
        let pieces: Vec<_> = object.body.into_stream().map_ok(|piece| piece.len()).try_collect().await?;
        println!("  Streamed {key} back: {} bytes in {} pieces.", pieces.iter().sum::<usize>(), pieces.len());
    }

    for file in files {
        import::verify(storage, prefix, file).await?;
    }
    println!("  Read all of them back: every byte is the same as on disk.");
    Ok(())
}

async fn show_stored_form(storage: &Storage, encrypted: &Storage, prefix: &str) -> Result<()> {
    let first = encrypted.list(prefix).await?.try_next().await?;
    let Some(entry) = first else { return Ok(()) };
    let range = GetOptions::new().range(..4);
    let stored = storage.get_with(&entry.key, range).await?.unwrap_or_default();
    println!(
        "  What lies in the store is encrypted: {} begins with {:02x?} and takes {} bytes instead of {}.",
        entry.key,
        stored.as_ref(),
        entry.stored_size.unwrap_or(entry.size),
        entry.size
    );
    Ok(())
}
