//! The server: HTTP/1.1 as far as clients of object stores speak it, written out so that a test can leave out any of it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use storage_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Cloud, Store};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The name of the object, decoded; empty for the bucket itself.
    pub name: String,
    /// The parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// The headers, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// Whether this is a parameter.
    #[must_use]
    pub fn has(&self, parameter: &str) -> bool {
        self.query.contains_key(parameter)
    }

    /// Whether the bucket is to be listed.
    #[must_use]
    pub fn lists(&self) -> bool {
        self.method == "GET" && self.name.is_empty() && !self.has("versioning")
    }

    /// Whether this ends an upload by parts.
    #[must_use]
    pub fn completes(&self) -> bool {
        let blocks = self.query.get("comp").is_some_and(|comp| comp == "blocklist");
        blocks || self.method == "POST" && self.has("uploadId")
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, without the length.
    pub headers: Vec<(String, String)>,
    /// The body, which a request with `HEAD` gets the length of.
    pub body: Vec<u8>,
    /// Whether the length is not said.
    pub unsized_: bool,
    /// Whether the connection ends instead.
    pub lost: bool,
}

impl Answer {
    /// An answer with a status and a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A page of HTML.
    #[must_use]
    pub fn page(status: u16, body: &str) -> Self {
        Self::new(status, body).header("content-type", "text/html; charset=utf-8")
    }

    /// An answer of XML.
    #[must_use]
    pub fn xml(status: u16, element: &str) -> Self {
        let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{element}");
        Self::new(status, body).header("content-type", "application/xml")
    }

    /// The same with another header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// The same with another text for this one in the body.
    #[must_use]
    pub fn replace(self, from: &str, to: &str) -> Self {
        let body = String::from_utf8_lossy(&self.body).replace(from, to).into_bytes();
        Self { body, ..self }
    }

    /// No answer: the connection ends.
    #[must_use]
    pub fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    fn write(&self, head: bool) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let bare = matches!(self.status, 204 | 304);
        match self.unsized_ {
            false if !bare => text += &format!("content-length: {}\r\n", self.body.len()),
            true if !head => text += "transfer-encoding: chunked\r\n",
            _ => {}
        }
        let mut bytes = (text + "\r\n").into_bytes();
        if !head && !bare {
            if self.unsized_ {
                for piece in self.body.chunks(64 << 10) {
                    bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    bytes.extend_from_slice(piece);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            } else {
                bytes.extend_from_slice(&self.body);
            }
        }
        bytes
    }
}

type Hook = Arc<dyn Fn(&Asked, &mut dyn FnMut() -> Answer) -> Answer + Send + Sync>;

/// A server, which ends with the runtime that it was started in.
#[derive(Clone)]
pub struct Server {
    pub(crate) cloud: Cloud,
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    hook: Mutex<Option<Hook>>,
    log: Mutex<Vec<Asked>>,
}

impl Server {
    /// Starts one.
    ///
    /// # Errors
    /// `Other` when there is no port for it.
    pub async fn start(cloud: Cloud) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let failed = |e| Error::new(ErrorKind::Other, "the server cannot be started").with_source(e);
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let shared = Shared { store: Mutex::default(), hook: Mutex::default(), log: Mutex::default() };
        let server = Self { cloud, address, shared: Arc::new(shared) };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A test does not wait for small packets.
                let _ = connection.set_nodelay(true);
                let server = accepting.clone();
                tokio::spawn(async move { server.serve(connection).await });
            }
        });
        Ok(server)
    }

    /// Whose protocol it speaks.
    #[must_use]
    pub fn cloud(&self) -> Cloud {
        self.cloud
    }

    /// What it holds.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.shared.store)
    }

    /// How each request is answered from now on. The second argument does what was asked, and says what the answer would be.
    pub fn answer(&self, hook: impl Fn(&Asked, &mut dyn FnMut() -> Answer) -> Answer + Send + Sync + 'static) {
        *lock(&self.shared.hook) = Some(Arc::new(hook));
    }

    /// From now on, it answers as it should.
    pub fn behave(&self) {
        *lock(&self.shared.hook) = None;
    }

    /// The requests since this was asked last.
    pub fn requests(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.shared.log))
    }

    async fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(asked) = read(&mut connection, &mut buffer, self.cloud.root()).await? {
            lock(&self.shared.log).push(asked.clone());
            let hook = lock(&self.shared.hook).clone();
            let mut serve = || self.cloud.serve(&mut self.store(), &asked);
            let answer = match hook {
                Some(hook) => hook(&asked, &mut serve),
                None => serve(),
            };
            if answer.lost {
                return Ok(());
            }
            connection.write_all(&answer.write(asked.method == "HEAD")).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("cloud", &self.cloud).field("address", &self.address).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next request; `None` when the client has gone.
async fn read(connection: &mut TcpStream, buffer: &mut Vec<u8>, root: &str) -> std::io::Result<Option<Asked>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<_, _> = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < end + length {
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = decode(path);
    let name = path.strip_prefix(root).unwrap_or(&path).trim_start_matches('/').to_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v)));
    let body = buffer[end..end + length].to_vec();
    let asked = Asked { method: method.to_owned(), name, query: query.collect(), headers, body };
    buffer.drain(..end + length);
    Ok(Some(asked))
}

pub(crate) fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, more @ ..] = rest {
        let code = more.get(..2).filter(|_| *first == b'%');
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
