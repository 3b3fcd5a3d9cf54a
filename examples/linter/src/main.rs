//! A linter for Markdown that keeps its configuration, schemas and results in any storage backend.
//!
//! `cargo run -p linter -- URI DIRECTORY`
#![allow(clippy::print_stdout, reason = "it tells a person what it found")]

use std::{env, fs, path::Path};

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use storage_core::{Entry, GetOptions, Metadata, OrderBy, PutOptions, Query, Storage};
use storage_registry::StorageConfig;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the linter is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Config {
    schema: String,
    shown: usize,
}

/// What a document must have.
#[derive(Serialize, Deserialize)]
struct Schema {
    title: bool,
    max_line: usize,
}

impl Schema {
    fn findings(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        if self.title && !text.starts_with("# ") {
            found.push("1: a document begins with its title".to_owned());
        }
        for (i, line) in text.lines().enumerate().filter(|(_, line)| line.chars().count() > self.max_line) {
            found.push(format!("{}: {} characters in a line", i + 1, line.chars().count()));
        }
        found
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [uri, directory] = &args[..] else { return Err("usage: linter URI DIRECTORY".into()) };
    let storage = open(uri).await?;

    put_schema(&storage, "strict", &Schema { title: true, max_line: 80 }).await?;
    put_schema(&storage, "relaxed", &Schema { title: true, max_line: 160 }).await?;
    for schema in ["strict", "relaxed"] {
        let config = Config { schema: schema.into(), shown: 3 };
        storage.put("config", serde_json::to_vec(&config)?).await?;
    }

    let config: Config = read(&storage, "config").await?;
    lint(&storage, &config, Path::new(directory)).await?;
    println!("The worst by the schema {:?}:", config.schema);
    for entry in worst(&storage, &config).await? {
        let findings = entry.metadata.as_ref().and_then(|metadata| metadata.fields.get("findings"));
        println!("  {} has {}", entry.key, findings.map_or_else(String::new, ToString::to_string));
    }
    println!("The configuration before: {:?}", previous(&storage).await?.ok_or("there is no older version")?);
    Ok(storage.disconnect().await?)
}

/// The store at this URI, with versions.
async fn open(uri: &str) -> storage_core::Result<Storage> {
    let mut config = StorageConfig::new(uri);
    let plain = storage_registry::build(&config).await?;
    if plain.info().capabilities.versioning {
        return Ok(plain);
    }
    config.layers.push("versioned?max_versions=20".parse()?);
    storage_registry::build(&config).await
}

async fn read<T: for<'de> Deserialize<'de>>(storage: &Storage, key: &str) -> Result<T> {
    let value = storage.get(key).await?.ok_or_else(|| format!("{key:?} is not in the store"))?;
    Ok(serde_json::from_slice(&value)?)
}

async fn put_schema(storage: &Storage, name: &str, schema: &Schema) -> Result<Entry> {
    let options = PutOptions::new().metadata(Metadata::new().field("type", "schema"));
    Ok(storage.put_with(format!("schemas/{name}"), serde_json::to_vec(schema)?, options).await?)
}

/// Validates the Markdown files of a directory and stores each result.
async fn lint(storage: &Storage, config: &Config, directory: &Path) -> Result<()> {
    let schema: Schema = read(storage, &format!("schemas/{}", config.schema)).await?;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            let findings = schema.findings(&fs::read_to_string(&path)?);
            let metadata = Metadata::new()
                .field("type", "result")
                .field("schema", config.schema.as_str())
                .field("findings", findings.len() as i64)
                .tag(if findings.is_empty() { "passed" } else { "failed" });
            let key = format!("results/{}", path.file_name().unwrap_or_default().to_string_lossy());
            storage.put_with(key, findings.join("\n"), PutOptions::new().metadata(metadata)).await?;
        }
    }
    Ok(())
}

/// The entries of the documents with the most findings.
async fn worst(storage: &Storage, config: &Config) -> Result<Vec<Entry>> {
    let failed = Query::new().prefix("results/").all_tags(["failed"]).limit(config.shown);
    let query = failed.descending(OrderBy::Field("findings".into()));
    Ok(storage.query(query).await?.try_collect().await?)
}

/// The configuration before the current one.
async fn previous(storage: &Storage) -> Result<Option<Config>> {
    let versions: Vec<Entry> = storage.versions("config").await?.try_collect().await?;
    let Some(version) = versions.get(1).and_then(|entry| entry.version.clone()) else { return Ok(None) };
    let value = storage.get_with("config", GetOptions::new().version(version)).await?;
    Ok(value.map(|value| serde_json::from_slice(&value)).transpose()?)
}
