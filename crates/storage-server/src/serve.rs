//! Connections: how many, how slow, encrypted or not, and their end.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use storage_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    Config,
    app::{App, Door},
    config::wrong,
    io::{Alarm, Patient},
};

pub(crate) async fn bind(config: &Config) -> Result<TcpListener> {
    let addresses = config.listen.to_socket_addrs();
    let address = addresses.ok().and_then(|mut all| all.next());
    let address = address.ok_or_else(|| wrong("`listen` must be an address and a port, as in `127.0.0.1:8080`"))?;
    if config.tokens.is_none() {
        must_be_local(address)?;
    }
    TcpListener::bind(address).await.map_err(|e| {
        let message = format!("{address} cannot be listened on ({}); choose another with `listen`", e.kind());
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })
}

pub(crate) fn must_be_local(address: SocketAddr) -> Result<()> {
    match address.ip().is_loopback() {
        true => Ok(()),
        false => Err(wrong(
            "without tokens only addresses of this machine are listened on; set `tokens`, or `listen` to `127.0.0.1` and a port",
        )),
    }
}

pub(crate) fn no_address(e: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the system does not know the address of the listener").with_source(e)
}

pub(crate) fn tls(config: &Config) -> Result<Option<TlsAcceptor>> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
    let bad = |what: &str, e: &dyn std::error::Error| wrong(format!("{what}: {e}"));
    let unread = "`tls_cert` must name a file with certificates as PEM";
    let certs = CertificateDer::pem_file_iter(cert).map_err(|e| bad(unread, &e))?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(|e| bad(unread, &e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("`tls_key` must name a file with a key as PEM", &e))?;
    let tls = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key));
    let mut tls = tls.map_err(|e| bad("`tls_cert` and `tls_key` do not fit together", &e))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(tls).into()))
}

pub(crate) async fn run(
    app: Arc<App>,
    router: Router,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    end: impl Future<Output = ()>,
) {
    let follow = match &app.door {
        Door::Tokens(tokens) => {
            let tokens = tokens.clone();
            Some(tokio::spawn(async move { tokens.follow().await }))
        }
        Door::Local(_) => None,
    };
    let sweep = app.uploads.clone().map(|uploads| {
        let pause = (app.config.upload_lifetime / 4).clamp(Duration::from_millis(100), Duration::from_secs(60));
        tokio::spawn(async move {
            loop {
                // A failure of the store is in the log.
                let _ = uploads.sweep().await;
                tokio::time::sleep(pause).await;
            }
        })
    });
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(app.config.max_connections)));
    let mut end = pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors, for example: some will be free again.
                tracing::warn!(target: "storage_server", error = %e, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // An answer must not wait for another piece.
        let _ = stream.set_nodelay(true);
        let (router, config, watcher) = (router.clone(), app.config.clone(), graceful.watcher());
        match tls.clone() {
            None => drop(tokio::spawn(connection(stream, permit, router, config, watcher))),
            Some(tls) => drop(tokio::spawn(async move {
                match timeout(config.header_timeout, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, permit, router, config, watcher).await,
                    _ => tracing::debug!(target: "storage_server", "a TLS handshake failed"),
                }
            })),
        }
    }
    drop(listener);
    tracing::info!(target: "storage_server", "ending: requests under way are answered");
    app.tasks.close();
    let done = async {
        graceful.shutdown().await;
        app.tasks.wait().await;
        app.transactions.end().await;
    };
    if timeout(app.config.shutdown_timeout, done).await.is_err() {
        tracing::warn!(target: "storage_server", "some requests were not answered in time");
    }
    for task in [follow, sweep].into_iter().flatten() {
        task.abort();
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

async fn connection<S>(
    stream: S,
    _permit: OwnedSemaphorePermit,
    router: Router,
    config: Config,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Patient::new(stream, config.write_timeout));
    let serving = http1::Builder::new()
        .timer(Alarm::new(config.header_timeout))
        .header_read_timeout(config.header_timeout)
        // Twice as much, so that what is too large by less is refused with problem details; what is larger still, without.
        .max_buf_size(config.max_header.saturating_mul(2))
        .serve_connection(io, TowerToHyperService::new(router));
    if let Err(e) = watcher.watch(serving).await {
        tracing::debug!(target: "storage_server", error = %e, "a connection broke");
    }
}
