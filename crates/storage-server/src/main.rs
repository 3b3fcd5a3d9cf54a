//! The program: a store from flags, environment and files, as a server of HTTP until it is told to end.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use storage_core::{Error, ErrorKind, Result};
use storage_registry::StorageConfig;
use storage_server::{Config, Server};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

const MORE: &str = "\
The store is read as every program on storage-registry does: STORAGE_CONFIG names a file in TOML or JSON with the store and its layers,
STORAGE_URI is a store, STORAGE_LAYERS are layers. Without any of them it is in memory, and gone with this process.

All settings of the server can stand in the file of `--config`, in TOML, under the names of the flags with `_`, limits and times
as well; a flag wins over the environment, and that over the file.

Without tokens the server listens on this machine only, and lets every program here read and write.

Exit codes: 0 after SIGTERM or SIGINT, when everything under way was done; 1 for a store or an address that cannot be used; 2 for
settings that make no sense.";

/// Serves a store of values under keys over HTTP.
#[derive(Parser)]
#[command(name = "storage-server", version, after_help = MORE)]
struct Arguments {
    /// The store, in place of STORAGE_CONFIG and STORAGE_URI: `sqlite:./data.db`, `fs:./storage`
    #[arg(value_name = "URI")]
    store: Option<String>,
    /// A file with the settings of the server, in TOML
    #[arg(long, value_name = "FILE", env = "STORAGE_SERVER_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", env = "STORAGE_SERVER_LISTEN")]
    listen: Option<String>,
    /// The file with the tokens of the clients, read again when it changes
    #[arg(long, value_name = "FILE", env = "STORAGE_SERVER_TOKENS")]
    tokens: Option<PathBuf>,
    /// Without tokens: let clients delete everything at once
    #[arg(long, env = "STORAGE_SERVER_ALLOW_CLEAR")]
    allow_clear: bool,
    /// The server's certificates as PEM, its own first
    #[arg(long, value_name = "FILE", env = "STORAGE_SERVER_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The key of the server's certificate as PEM
    #[arg(long, value_name = "FILE", env = "STORAGE_SERVER_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Take resumable uploads (experimental), and keep what has come of them in this store: `fs:./uploads`
    #[arg(long, value_name = "URI", env = "STORAGE_SERVER_UPLOADS")]
    uploads: Option<String>,
    /// What is logged to stderr: a level, or levels by target, as in `warn,storage_server::access=info`
    #[arg(long, value_name = "LEVELS", env = "STORAGE_SERVER_LOG", default_value = "info")]
    log: Targets,
    /// Print the description of all routes in OpenAPI 3.1, and end
    #[arg(long)]
    openapi: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.openapi {
        show(&storage_server::openapi());
        return ExitCode::SUCCESS;
    }
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(arguments.log.clone()).with(log).init();
    match serve(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("storage-server: {e}");
            let mut cause = std::error::Error::source(&e);
            while let Some(e) = cause {
                eprintln!("  because: {e}");
                cause = e.source();
            }
            ExitCode::from(if e.kind() == ErrorKind::Config { 2 } else { 1 })
        }
    }
}

async fn serve(arguments: Arguments) -> Result<()> {
    let (config, uploads) = settings(&arguments)?;
    config.check()?;
    let storage = storage_registry::build(&store(&arguments)?).await?;
    let measured = recorder()?;
    let mut server = Server::new(storage.clone(), config)?.metrics(move || measured.render());
    let parts = match &uploads {
        Some(uri) => Some(storage_registry::build(&StorageConfig::new(uri)).await?),
        None => None,
    };
    if let Some(parts) = &parts {
        server = server.uploads(parts.clone());
    }
    let server = server.bind().await?;
    let (address, notice, name) = (server.address()?, server.notice(), storage.info().name.clone());
    tracing::info!(target: "storage_server", %address, store = name, "{notice}");
    // For whoever starts it and must know the port.
    show(&format!("listening on {address} ({name}; {notice})"));
    server.run(told_to_end()).await;
    if let Some(parts) = parts {
        parts.disconnect().await?;
    }
    storage.disconnect().await
}

/// The settings of the server, and the store of resumable uploads: flags and environment over the file over the defaults.
fn settings(arguments: &Arguments) -> Result<(Config, Option<String>)> {
    let (mut config, mut uploads) = (Config::default(), None);
    if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| wrong(format!("the file of settings cannot be read: {}", e.kind())))?;
        let unread = |e: toml::de::Error| wrong(format!("the file of settings: {}", e.message()));
        let mut table: toml::Table = toml::from_str(&text).map_err(unread)?;
        uploads = match table.remove("uploads") {
            None => None,
            Some(toml::Value::String(uri)) => Some(uri),
            Some(_) => return Err(wrong("the file of settings: `uploads` must be the URI of a store")),
        };
        config = table.try_into().map_err(unread)?;
    }
    if let Some(listen) = &arguments.listen {
        config.listen.clone_from(listen);
    }
    config.tokens = arguments.tokens.clone().or(config.tokens);
    config.allow_clear |= arguments.allow_clear;
    config.tls_cert = arguments.tls_cert.clone().or(config.tls_cert);
    config.tls_key = arguments.tls_key.clone().or(config.tls_key);
    Ok((config, arguments.uploads.clone().or(uploads)))
}

fn store(arguments: &Arguments) -> Result<StorageConfig> {
    let mut config = StorageConfig::from_env()?;
    if let Some(uri) = &arguments.store {
        let layers = std::mem::take(&mut config.layers);
        config = StorageConfig::new(uri);
        config.layers = layers;
    }
    Ok(config)
}

fn recorder() -> Result<PrometheusHandle> {
    const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder);
    let handle = builder.map_err(|e| Error::new(ErrorKind::Other, "nothing can be measured").with_source(e))?;
    let kept = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            kept.run_upkeep();
        }
    });
    Ok(handle)
}

/// SIGTERM or SIGINT.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[allow(clippy::print_stdout, reason = "a program says what it does")]
fn show(text: &str) {
    use std::io::Write;
    println!("{text}");
    // Whoever reads it may have gone.
    let _ = std::io::stdout().flush();
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}
