//! What a connection knows: the server, its store, and the run of the server that write ids are made for.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use data_encoding::BASE64URL_NOPAD;
use reqwest::{Method, Request, StatusCode, header::HeaderValue};
use storage_core::{BackendInfo, Capabilities, Error, ErrorKind, Result};
use storage_rest_wire::{InfoJson, PROTOCOL, ServerJson, WriteId, headers};

use crate::{Api, Config, config::wrong, error, foreign::Foreign, http::Http, task::Tasks};

/// What of the contract goes over the wire.
const KNOWN: Capabilities = Capabilities::new()
    .atomic()
    .streaming()
    .conditional()
    .conditional_delete()
    .version_etags()
    .transactions()
    .versioning()
    .queryable()
    .presign()
    .sources()
    .distributed()
    .encryption()
    .compression();

/// A store behind a storage-server, or one of its transactions.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: Tasks,
    /// The id of the transaction.
    pub(crate) transaction: Option<Arc<str>>,
}

pub(crate) struct Shared {
    pub(crate) http: Http,
    pub(crate) info: BackendInfo,
    run: RwLock<Run>,
    pub(crate) closed: AtomicBool,
}

/// A run of the server, and its clock.
struct Run {
    boot: String,
    uptime_ms: u64,
    seen: Instant,
}

impl Run {
    fn of(server: &ServerJson) -> Self {
        Self { boot: server.boot.clone(), uptime_ms: server.uptime_ms, seen: Instant::now() }
    }
}

/// What a server turned out to be.
#[derive(Debug)]
pub(crate) enum Found {
    Remote(Remote),
    Foreign(Foreign),
}

impl Found {
    pub(crate) async fn connect(config: &Config) -> Result<Self> {
        let http = Http::new(config)?;
        if config.api == Api::Files {
            return Ok(Self::Foreign(Foreign::connect(http).await?));
        }
        match about(&http).await? {
            Some(server) => Ok(Self::Remote(Remote::new(http, &server))),
            None if config.api == Api::Auto => Ok(Self::Foreign(Foreign::connect(http).await?)),
            None => Err(wrong("the server has no `/v1`; check the URL, or set `api` to `files` for its plain routes")),
        }
    }
}

/// What the server says of itself; `None` where there is no `/v1`.
async fn about(http: &Http) -> Result<Option<ServerJson>> {
    let answer = http.ask(http.request(Method::GET, "v1", &[])?).await?;
    let foreign = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    if foreign.contains(&answer.status) && !error::is_of_server(&answer.headers) {
        return Ok(None);
    }
    let answer = answer.success()?;
    let Ok(server) = answer.json::<ServerJson>() else {
        return Err(error::strange("it is no description of a server"));
    };
    match server.protocol {
        PROTOCOL => Ok(Some(server)),
        other => Err(wrong(format!("the server speaks version {other} of the protocol, this client {PROTOCOL}"))),
    }
}

impl Remote {
    fn new(http: Http, server: &ServerJson) -> Self {
        let tasks = Tasks::new(http.timeout);
        let (info, run) = (described(&server.store), RwLock::new(Run::of(server)));
        Self { shared: Arc::new(Shared { http, info, run, closed: AtomicBool::new(false) }), tasks, transaction: None }
    }

    pub(crate) fn http(&self) -> &Http {
        &self.shared.http
    }

    /// A request of this instance or transaction.
    pub(crate) fn request(&self, method: Method, path: &str, params: &[(&str, &str)]) -> Result<Request> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        let mut request = self.http().request(method, path, params)?;
        if let Some(id) = &self.transaction {
            set(&mut request, headers::TRANSACTION, id)?;
        }
        Ok(request)
    }

    /// A fresh id for a write.
    pub(crate) fn write_id(&self) -> WriteId {
        let run = self.shared.run.read().unwrap_or_else(PoisonError::into_inner);
        let at_ms = run.uptime_ms + u64::try_from(run.seen.elapsed().as_millis()).unwrap_or(u64::MAX / 2);
        let unique = BASE64URL_NOPAD.encode(&fastrand::u128(..).to_be_bytes());
        WriteId { boot: run.boot.clone(), at_ms, unique }
    }

    /// Asks the server which run of it this is.
    pub(crate) async fn learn(&self) -> Result<()> {
        let server = about(self.http()).await?;
        let server = server.ok_or_else(|| error::strange("it has no `/v1` any more"))?;
        *self.shared.run.write().unwrap_or_else(PoisonError::into_inner) = Run::of(&server);
        Ok(())
    }
}

fn described(store: &InfoJson) -> BackendInfo {
    let mut info = BackendInfo::new("rest", store.capabilities.and(KNOWN));
    info.name = "REST".into();
    info.description = format!("{} (here: {})", env!("CARGO_PKG_DESCRIPTION"), store.name);
    info.version = env!("CARGO_PKG_VERSION").into();
    info.limits = store.limits.into();
    info.consistency = store.consistency;
    info.isolation = store.isolation;
    info
}

/// Sets a header of a request.
pub(crate) fn set(request: &mut Request, name: &'static str, value: &str) -> Result<()> {
    let value = HeaderValue::from_str(value)
        .map_err(|_| Error::new(ErrorKind::InvalidInput, format!("the header `{name}` cannot hold this")))?;
    request.headers_mut().insert(name, value);
    Ok(())
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("http", &self.shared.http).finish_non_exhaustive()
    }
}
