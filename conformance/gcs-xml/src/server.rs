//! Listens, and hands each request to its translation.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, thread};

use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    emulator::Emulator,
    list, objects,
    refusal::{Body, Refusal, Result, whole},
    request::Asked,
    uploads,
};

/// A server of the XML interface before an emulator of the JSON one. It runs until the process ends, on a thread of its own.
#[derive(Debug)]
pub struct Translator {
    address: SocketAddr,
}

impl Translator {
    /// Starts one before the emulator at this `host:port`, at a port of its own. The emulator need not be there yet.
    ///
    /// # Errors
    /// Those of the system, when there is no port or no thread for it.
    pub fn start(emulator: &str) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let emulator = Arc::new(Emulator::new(emulator));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("gcs-xml".to_owned()).spawn(move || runtime.block_on(serve(listener, emulator)))?;
        Ok(Self { address })
    }

    /// Where it listens, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

async fn serve(listener: std::net::TcpListener, emulator: Arc<Emulator>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (connection, _) = listener.accept().await?;
        // Without it, small answers wait for the acknowledgement of what went before.
        let _ = connection.set_nodelay(true);
        let emulator = emulator.clone();
        let service = service_fn(move |request| answer(emulator.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
    }
}

async fn answer(
    emulator: Arc<Emulator>,
    request: Request<Incoming>,
) -> std::result::Result<Response<Body>, Infallible> {
    let head = request.method() == Method::HEAD;
    let mut answer = translate(&emulator, request).await.unwrap_or_else(|refusal| refusal.answer());
    // Nothing follows an answer to HEAD, nor one that nothing has changed.
    if head || answer.status() == StatusCode::NOT_MODIFIED {
        *answer.body_mut() = whole("");
    }
    // Google names each request, by which its answers are known.
    answer.headers_mut().insert("x-guploader-uploadid", HeaderValue::from_static("translated"));
    Ok(answer)
}

async fn translate(emulator: &Emulator, request: Request<Incoming>) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(parts)?;
    let body = body.map_err(io::Error::other).boxed_unsync();
    let parameters = asked.parameters();
    match (asked.method.as_str(), asked.name.is_empty(), &parameters[..]) {
        ("GET", true, _) => list::list(emulator, &asked).await,
        ("GET" | "HEAD", false, [] | ["generation"]) => objects::read(emulator, &asked).await,
        ("PUT", false, []) if asked.header("x-goog-copy-source")?.is_some() => objects::copy(emulator, &asked).await,
        ("PUT", false, []) => objects::write(emulator, &asked, body).await,
        ("PUT", false, ["partNumber", "uploadId"]) => uploads::part(emulator, &asked, body).await,
        ("POST", false, ["uploads"]) => uploads::begin(emulator, &asked).await,
        ("POST", false, ["uploadId"]) => uploads::complete(emulator, &asked, body).await,
        ("DELETE", false, []) => objects::delete(emulator, &asked).await,
        ("DELETE", false, ["uploadId"]) => uploads::abort(emulator, &asked).await,
        (method, bucket, parameters) => {
            let what = if bucket { "a bucket" } else { "an object" };
            Err(Refusal::unknown(format_args!("{method} of {what} with the parameters {parameters:?}")))
        }
    }
}
