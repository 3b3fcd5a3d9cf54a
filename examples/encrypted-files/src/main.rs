//! Keeps files in any storage backend, encrypted.
//!
//! `FILES_KEY=… cargo run -p encrypted-files -- URI COMMAND`

use std::{env, process::ExitCode};

use futures_util::TryStreamExt;
use storage_core::{Body, Error, ErrorKind, GetOptions, Storage};
use storage_registry::StorageConfig;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, stdout},
};
use tokio_util::io::ReaderStream;

const USAGE: &str = "usage: encrypted-files URI COMMAND
  set NAME FILE   store a file under a name
  get NAME        write it to the standard output
  has NAME        say whether it is there: exit code 0 or 1
  delete NAME     remove it
  clear [PREFIX]  remove all whose names begin so
  keys [PREFIX]   list their names
The environment variable FILES_KEY holds the key: 32 bytes as base64 or hexadecimal digits.";

const LAYERS: &str = r#"
retry = {}
layers = ["compress", { name = "encrypt", keys.main = "env:FILES_KEY" }]
"#;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("encrypted-files: {e}");
            ExitCode::from(2)
        }
    }
}

/// The store at this URI: what goes in is compressed, then encrypted.
async fn open(uri: &str) -> storage_core::Result<Storage> {
    let mut config = StorageConfig::from_toml(LAYERS)?;
    config.backend = uri.to_owned();
    storage_registry::build(&config).await
}

/// Does what was asked; whether the answer is yes.
async fn run(args: &[&str]) -> Result<bool> {
    let [uri, command @ ..] = args else { return Err(USAGE.into()) };
    // The configuration's own error does not repeat the name: what stands there may be a secret in the wrong place.
    if env::var_os("FILES_KEY").is_none() {
        return Err(
            "set the environment variable FILES_KEY to the key: 32 bytes as base64 or hexadecimal digits".into()
        );
    }
    let storage = open(uri).await?;
    match command {
        ["set", name, file] => {
            let file = File::open(file).await.map_err(|e| format!("cannot read {file}: {e}"))?;
            let size = file.metadata().await?.len();
            let broken = |e| Error::new(ErrorKind::Other, "the file cannot be read to its end").with_source(e);
            storage.set(*name, Body::with_len(size, ReaderStream::new(file).map_err(broken))).await?;
        }
        ["get", name] => {
            let object = storage.open(*name, GetOptions::new()).await?;
            let mut pieces = object.ok_or_else(|| format!("there is no file {name:?}"))?.body.into_stream();
            let mut out = stdout();
            while let Some(piece) = pieces.try_next().await? {
                out.write_all(&piece).await?;
            }
            out.flush().await?;
        }
        ["has", name] => return Ok(storage.has(*name).await?),
        ["delete", name] => storage.delete(*name).await?,
        ["clear"] => storage.clear().await?,
        ["clear", prefix] => storage.clear_prefix(prefix).await?,
        ["keys"] | ["keys", _] => {
            let mut entries = storage.list(command.get(1).copied().unwrap_or_default()).await?;
            let mut out = stdout();
            while let Some(entry) = entries.try_next().await? {
                out.write_all(format!("{}\n", entry.key).as_bytes()).await?;
            }
            out.flush().await?;
        }
        _ => return Err(USAGE.into()),
    }
    storage.disconnect().await?;
    Ok(true)
}
