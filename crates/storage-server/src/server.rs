//! The server: its routes, and how it serves connections until it is told to end.

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use storage_core::{ErrorKind, Result, Storage};
use storage_rest_wire::code;
use tokio::net::TcpListener;

use crate::{
    Config,
    answer::Failure,
    app::{App, Door},
    batch, files, guard, openapi, resumable, serve, sessions,
    uploads::Uploads,
    v1,
};

/// A store behind HTTP.
pub struct Server {
    app: App,
}

impl Server {
    /// A server over a store.
    ///
    /// # Errors
    /// `Config` for what makes no sense, and for a file of tokens that cannot be read.
    pub fn new(storage: Storage, config: Config) -> Result<Self> {
        Ok(Self { app: App::new(storage, config)? })
    }

    /// Answers `GET /metrics` with what the function returns, as Prometheus reads it.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.app.metrics = Some(Box::new(render));
        self
    }

    /// Takes resumable uploads (experimental), whose bytes are in this store until they are complete. It must not be the store that is served, nor
    /// that of another server; what others keep in it below `record/` and `part/` is lost.
    #[must_use]
    pub fn uploads(mut self, store: Storage) -> Self {
        self.app.uploads = Some(Arc::new(Uploads::new(store)));
        self
    }

    /// The routes, for a server of the program's own. It must see to slow clients and the size of headers itself, and is not asked for the names
    /// by which it is reached: use tokens.
    pub fn router(self) -> Router {
        router(Arc::new(self.app))
    }

    /// Binds the configured address.
    ///
    /// # Errors
    /// `Config` without tokens and an address that others can reach; `Unavailable` when it cannot be bound.
    pub async fn bind(self) -> Result<Bound> {
        let listener = serve::bind(&self.app.config).await?;
        self.on(listener)
    }

    /// Takes a listener that is bound already.
    ///
    /// # Errors
    /// `Config` for certificates or keys that cannot be read, and without tokens for an address that others can reach.
    pub fn on(self, listener: TcpListener) -> Result<Bound> {
        let address = listener.local_addr().map_err(serve::no_address)?;
        if matches!(self.app.door, Door::Local(_)) {
            serve::must_be_local(address)?;
            // It has none yet.
            let _ = self.app.port.set(address.port());
        }
        let tls = serve::tls(&self.app.config)?;
        Ok(Bound { app: Arc::new(self.app), listener, tls })
    }
}

/// A server that listens.
pub struct Bound {
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Bound {
    /// Where it listens.
    ///
    /// # Errors
    /// `Unavailable` when the system does not know.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        self.listener.local_addr().map_err(serve::no_address)
    }

    /// What it does about who may ask, in one line for whoever starts it.
    #[must_use]
    pub fn notice(&self) -> &'static str {
        match (&self.app.door, self.app.config.allow_clear) {
            (Door::Tokens(_), _) => "a token is needed",
            (Door::Local(_), false) => {
                "without tokens: every program on this machine may read and write, and nobody may delete everything at once"
            }
            (Door::Local(_), true) => {
                "without tokens: every program on this machine may read, write and delete everything"
            }
        }
    }

    /// Serves until `end` completes, and then until what is under way has been done: no new connections are taken, requests are
    /// answered, writes are finished, open transactions are rolled back. The store is left connected.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let Self { app, listener, tls } = self;
        serve::run(app.clone(), router(app), listener, tls, end).await;
    }
}

fn router(app: Arc<App>) -> Router {
    let open = Router::new().route("/health", get(v1::health)).method_not_allowed_fallback(no_method);
    let open = open.layer(from_fn_with_state(app.clone(), guard::local));
    let guarded = Router::new()
        .route("/files", get(files::list).delete(files::clear))
        .route("/files/", axum::routing::any(files::no_key))
        .route(
            "/files/{key}",
            get(files::get).head(files::head).put(files::put).delete(files::delete).options(resumable::options),
        )
        .route("/v1", get(v1::about))
        .route(
            "/v1/objects/{key}",
            get(v1::get).head(v1::head).put(v1::put).delete(v1::delete).options(resumable::options),
        )
        .route(
            "/v1/uploads/{id}",
            patch(resumable::append).head(resumable::offset).delete(resumable::cancel).options(resumable::options),
        )
        .route("/v1/entries/{key}", get(v1::stat))
        .route("/v1/versions/{key}", get(v1::versions))
        .route("/v1/list", get(v1::list))
        .route("/v1/query", post(v1::query))
        .route("/v1/clear", post(v1::clear))
        .route("/v1/copy", post(v1::copy))
        .route("/v1/rename", post(v1::rename))
        .route("/v1/presign", post(v1::presign))
        .route("/v1/batch/get", post(batch::get))
        .route("/v1/batch/put", post(batch::put))
        .route("/v1/batch/delete", post(batch::delete))
        .route("/v1/transactions", post(sessions::begin))
        .route("/v1/transactions/{id}", axum::routing::delete(sessions::rollback))
        .route("/v1/transactions/{id}/commit", post(sessions::commit))
        .route("/v1/writes/{id}", post(sessions::settle))
        .route("/openapi.json", get(openapi::document))
        .route("/metrics", get(metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(guard::Guard(app.clone()));
    open.merge(guarded).with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match &app.metrics {
        Some(render) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], render()).into_response(),
        None => no_route_here().into_response(),
    }
}

async fn no_route(request: Request) -> Failure {
    match request.uri().path().starts_with("/files/") {
        true => Failure::new(ErrorKind::InvalidKey, "a key is one segment of the path; write each `/` of it as `%2F`"),
        false => no_route_here(),
    }
}

pub(crate) fn no_route_here() -> Failure {
    let detail = "no such route; this server has `/files` and version 1 of the protocol, `/v1`";
    Failure::new(ErrorKind::NotFound, detail).code(code::NO_ROUTE)
}

async fn no_method(request: Request) -> Failure {
    no_such_method(request.method())
}

pub(crate) fn no_such_method(method: &Method) -> Failure {
    let detail = format!("this route does not take the method {method}; the header `Allow` lists those it takes");
    Failure::new(ErrorKind::Unsupported, detail).status(StatusCode::METHOD_NOT_ALLOWED)
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.app.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("address", &self.listener.local_addr().ok()).finish_non_exhaustive()
    }
}
