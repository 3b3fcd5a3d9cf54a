//! A store with a server of its own for presigned requests, and what can be wrong with it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use storage_core::{
    BackendInfo, Body, DeleteOptions, Error, ErrorKind, GetOptions, Key, PresignMethod, PresignOptions,
    PresignedRequest, PutOptions, Result, StatOptions, StorageBackend, async_trait,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
    task::JoinHandle,
};

use super::{
    table,
    wrap::{Fault, Sides},
};

table! {
    presigned_get_loses_a_byte = Presigns::with(Flaw::LosesAByte) => ["presign/reads"];
    presigned_get_is_of_the_past = Presigns::with(Flaw::OfThePast) => ["presign/reads"];
    presigned_get_of_nothing_is_empty = Presigns::with(Flaw::NothingIsEmpty) => ["presign/reads"];
    presigned_put_stores_nothing = Presigns::with(Flaw::StoresNothing) => ["presign/content_is_bound", "presign/writes"];
    presigned_put_keeps_metadata = Presigns::with(Flaw::KeepsMetadata) => ["presign/writes"];
    presigned_delete_removes_nothing = Presigns::with(Flaw::RemovesNothing) => ["presign/writes"];
    presigned_requests_never_expire = Presigns::with(Flaw::NeverExpires) => ["presign/only_what_was_signed"];
    presigned_requests_can_be_altered = Presigns::with(Flaw::AnySignature) => ["presign/only_what_was_signed"];
    presigned_requests_do_anything = Presigns::with(Flaw::AnyMethod) => ["presign/only_what_was_signed"];
    presigned_content_is_not_bound = Presigns::with(Flaw::AnyContent) => ["presign/content_is_bound"];
    presigned_requests_are_not_offered = Presigns::with(Flaw::OnlyPromises) => [
        "presign/content_is_bound",
        "presign/only_what_was_signed",
        "presign/reads",
        "presign/writes",
    ];
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Sound,
    LosesAByte,
    OfThePast,
    NothingIsEmpty,
    StoresNothing,
    KeepsMetadata,
    RemovesNothing,
    NeverExpires,
    AnySignature,
    AnyMethod,
    AnyContent,
    OnlyPromises,
}

/// Presigns requests, which a server answers that begins with the first of them.
#[derive(Debug)]
pub(crate) struct Presigns {
    flaw: Flaw,
    server: OnceCell<Server>,
}

impl Presigns {
    pub(crate) fn with(flaw: Flaw) -> Self {
        Self { flaw, server: OnceCell::new() }
    }
}

#[async_trait]
impl Fault for Presigns {
    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities.presign = true;
    }

    async fn presign(&self, s: Sides<'_>, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        if self.flaw == Flaw::OnlyPromises {
            return Err(Error::new(ErrorKind::Other, "no request can be presigned"));
        }
        let server = self.server.get_or_try_init(|| Server::begin(s.inner.clone(), self.flaw)).await?;
        server.presign(key, &options).await
    }
}

/// What the server knows.
#[derive(Clone, Debug)]
struct Shared {
    inner: Arc<dyn StorageBackend>,
    secret: u64,
    flaw: Flaw,
}

#[derive(Debug)]
struct Server {
    address: String,
    shared: Shared,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn begin(inner: Arc<dyn StorageBackend>, flaw: Flaw) -> Result<Self> {
        let failed = |e: io::Error| Error::new(ErrorKind::Unavailable, "cannot listen").with_source(e);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let shared = Shared { inner, secret: fastrand::u64(..), flaw };
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // One after the other: the suite sends one at a time. A client that goes away has its own error.
                    let _ = shared.serve(stream).await;
                }
            }
        });
        Ok(Self { address, shared, task })
    }

    async fn presign(&self, key: &Key, options: &PresignOptions) -> Result<PresignedRequest> {
        let Shared { inner, flaw, .. } = &self.shared;
        let until = now() + options.expires_in;
        let mut target = format!(
            "/{}?method={}&until={}",
            HEXLOWER.encode(key.as_str().as_bytes()),
            options.method,
            until.as_millis()
        );
        if *flaw == Flaw::OfThePast && options.method == PresignMethod::Get {
            let old = inner.get(key, GetOptions::new()).await?;
            let old = match old {
                Some(object) => object.body.bytes(u64::MAX).await?,
                None => storage_core::Bytes::new(),
            };
            target += &format!("&value={}", HEXLOWER.encode(&old));
        }
        let mut headers = Vec::new();
        if let Some(content_type) = &options.content_type {
            target += &format!("&type={}", HEXLOWER.encode(content_type.as_bytes()));
            headers.push(("content-type", content_type.as_str()));
        }
        if let Some(length) = options.content_length {
            target += &format!("&length={length}");
        }
        let url = format!("http://{}{target}&signature={:x}", self.address, self.shared.signature(&target));
        let request = PresignedRequest::new(options.method, url, options.expires_in);
        Ok(headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)))
    }
}

impl Shared {
    fn signature(&self, target: &str) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.secret, target).hash(&mut hash);
        hash.finish()
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let (mut received, mut buffer) = (Vec::new(), [0; 8192]);
        let end = loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                n => received.extend_from_slice(&buffer[..n]),
            }
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&received[..end]).into_owned();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find_map(|(found, value)| (found == name).then(|| value.to_owned()))
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = received.split_off(end);
        while body.len() < length {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                n => body.extend_from_slice(&buffer[..n]),
            }
        }
        let mut line = head.split(' ');
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let (status, answer) = match self.allow(method, target, header("content-type"), length) {
            Some(key) => self.answer(method, target, &key, body).await.unwrap_or((500, Vec::new())),
            None => (403, Vec::new()),
        };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await?;
        if method != "HEAD" {
            stream.write_all(&answer).await?;
        }
        stream.shutdown().await
    }

    /// The key, if the request may be sent.
    fn allow(&self, method: &str, target: &str, content_type: Option<String>, length: usize) -> Option<Key> {
        let (signed, signature) = target.split_once("&signature=")?;
        let forged = u64::from_str_radix(signature, 16).ok() != Some(self.signature(signed));
        let expired = now().as_millis() > query(signed, "until")?.parse().ok()?;
        let other_method = query(signed, "method")? != method;
        let typed = content_type.map(|text| HEXLOWER.encode(text.as_bytes()));
        let other_content = query(signed, "type").is_some_and(|bound| Some(bound) != typed.as_deref())
            || query(signed, "length").is_some_and(|bound| bound != length.to_string());
        if forged && self.flaw != Flaw::AnySignature
            || expired && self.flaw != Flaw::NeverExpires
            || other_method && self.flaw != Flaw::AnyMethod
            || other_content && self.flaw != Flaw::AnyContent
        {
            return None;
        }
        let key = HEXLOWER.decode(signed.strip_prefix('/')?.split('?').next()?.as_bytes()).ok()?;
        Key::parse(std::str::from_utf8(&key).ok()?).ok()
    }

    async fn answer(&self, method: &str, target: &str, key: &Key, body: Vec<u8>) -> Result<(u16, Vec<u8>)> {
        match method {
            "PUT" if self.flaw == Flaw::StoresNothing => Ok((200, Vec::new())),
            "PUT" => {
                let mut options = PutOptions::new();
                if self.flaw == Flaw::KeepsMetadata {
                    let old = self.inner.stat(key, StatOptions::new()).await?;
                    options.metadata = old.and_then(|old| old.metadata);
                }
                self.inner.put(key, Body::from(body), options).await.map(|_| (200, Vec::new()))
            }
            "DELETE" if self.flaw == Flaw::RemovesNothing => Ok((204, Vec::new())),
            "DELETE" => self.inner.delete(key, DeleteOptions::new()).await.map(|()| (204, Vec::new())),
            _ => match self.inner.get(key, GetOptions::new()).await? {
                None if self.flaw == Flaw::NothingIsEmpty => Ok((200, Vec::new())),
                None => Ok((404, Vec::new())),
                Some(object) => {
                    let mut value = object.body.bytes(u64::MAX).await?.to_vec();
                    if self.flaw == Flaw::LosesAByte {
                        value.pop();
                    }
                    let past = query(target, "value").and_then(|past| HEXLOWER.decode(past.as_bytes()).ok());
                    Ok((200, past.unwrap_or(value)))
                }
            },
        }
    }
}

fn query<'t>(target: &'t str, name: &str) -> Option<&'t str> {
    let (_, pairs) = target.split_once('?')?;
    let mut pairs = pairs.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(found, value)| (found == name).then_some(value))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
