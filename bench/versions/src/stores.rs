//! The stores that are compared, by configurations that every version understands.

use std::path::Path;

use storage_core::Storage;
use storage_registry::{Registry, StorageConfig};

use crate::{Result, subject::Operation};

pub(crate) const NAMES: [&str; 6] = ["memory", "fs durable", "fs relaxed", "sqlite", "cache", "compress encrypt"];

/// A key for measuring, not for anything else.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) async fn open(name: &str, dir: &Path) -> Result<Storage> {
    let key = dir.join("key");
    std::fs::write(&key, KEY)?;
    let memory = "backend = \"memory\"\noptions = { max_versions = 1 }";
    let config = match name {
        "memory" => memory.to_owned(),
        "fs durable" => format!("backend = \"fs\"\nconnection = {:?}", dir.join("files")),
        "fs relaxed" => {
            format!("backend = \"fs\"\nconnection = {:?}\noptions = {{ durability = \"relaxed\" }}", dir.join("files"))
        }
        "sqlite" => format!("backend = \"sqlite\"\nconnection = {:?}", dir.join("test.db")),
        "cache" => format!("{memory}\nlayers = [\"cache\"]"),
        "compress encrypt" => {
            format!(
                "{memory}\nlayers = [\"compress\", {{ name = \"encrypt\", keys.test = \"file:{}\" }}]",
                key.display()
            )
        }
        unknown => return Err(format!("there is no store `{unknown}`").into()),
    };
    Ok(Registry::new().build(&StorageConfig::from_toml(&config)?).await?)
}

/// What is measured on a store: on slow ones, not what says the same of a faster one.
pub(crate) fn operations(name: &str) -> Vec<Operation> {
    use Operation::{Batch, Get, List, Put, Read, Stat, Write};
    match name {
        "fs durable" => vec![Put, Write],
        "cache" => vec![Put, Get, Stat],
        "compress encrypt" => vec![Put, Get, Stat, Write, Read],
        "sqlite" => vec![Put, Get, Stat, List, Batch, Write, Read],
        _ => vec![Put, Get, Stat, List, Write, Read],
    }
}
