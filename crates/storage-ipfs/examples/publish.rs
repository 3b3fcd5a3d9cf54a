//! Publishes a directory on an IPFS node, and reads it through a gateway that is not trusted.
//!
//! ```sh
//! cargo run -p storage-ipfs --example publish -- DIRECTORY http://127.0.0.1:5001 http://127.0.0.1:8080
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{env, fs, path::Path};

use futures_util::TryStreamExt;
use storage_core::{Metadata, PutOptions, Storage};
use storage_ipfs::{Config, Ipfs};
use storage_sql::Sql;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let [directory, node, gateway] = env::args().skip(1).collect::<Vec<_>>().try_into().map_err(
        |_| "say what, where, and by which gateway: publish DIRECTORY http://127.0.0.1:5001 http://127.0.0.1:8080",
    )?;
    // What has which content stands in a file: with it, the next run sends only what is new.
    let index = Storage::new(Sql::open("sqlite:./publish.db?busy_timeout=30").await?);
    let store = Ipfs::connect(Config::new(&node)?, index.clone()).await?;
    let storage = Storage::typed(store);
    let mut files = Vec::new();
    find(Path::new(&directory), "", &mut files)?;
    for (key, path) in &files {
        let metadata = Metadata::new().field("published_from", path.as_str());
        let entry = storage.put_with(key.as_str(), fs::read(path)?, PutOptions::new().metadata(metadata)).await?;
        println!("{} {key}", entry.attributes.get("cid").unwrap_or_default());
    }
    // A tree in MFS gives all of it one name.
    let published = storage.backend().export("/published").await?;
    println!("{} files: {gateway}/ipfs/{}/tree/", published.entries, published.cid);

    // Whoever has the index reads by the gateway alone; each block is compared with its name.
    let mut config = Config::default();
    config.gateway = Some(gateway);
    let reader = Storage::new(Ipfs::connect(config, index).await?);
    let mut keys = reader.keys().await?;
    let mut read = 0;
    while let Some(key) = keys.try_next().await? {
        read += reader.get(key.as_str()).await?.map_or(0, |value| value.len());
    }
    println!("{read} bytes were read through the gateway, and are what was put");
    Ok(())
}

/// The files below a directory, and their keys.
fn find(directory: &Path, prefix: &str, files: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| "a name of a file is not UTF-8")?;
        let key = format!("{prefix}{name}");
        match entry.file_type()? {
            kind if kind.is_dir() => find(&entry.path(), &format!("{key}/"), files)?,
            kind if kind.is_file() => files.push((key, entry.path().display().to_string())),
            _ => {}
        }
    }
    Ok(())
}
