//! A server of somebody else with the six plain routes: values under keys, and nothing beside.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Method, Request, StatusCode, header::RANGE};
use serde::Deserialize;
use storage_core::{
    BackendInfo, Body, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, ListStream,
    Object, PutOptions, Result, StatOptions, StorageBackend, async_trait, defaults,
    pending::{Commit, Keys},
};
use storage_rest_wire::key as keys;

use crate::{
    connect::set,
    error,
    http::{Answer, Http, Lost, Progress, declared},
    read::{content_range, pieces},
    task::Tasks,
    upload::{State, Upload},
};

/// How many sizes are asked for at once in a listing.
const AT_ONCE: usize = 8;
/// Values of at most so many bytes are read at once.
const SMALL: u64 = 64 << 10;
/// Values of unknown length are held in memory, since few plain servers take them otherwise; at most so many bytes.
const HELD: u64 = 1 << 30;

#[derive(Clone)]
pub(crate) struct Foreign {
    http: Http,
    info: Arc<BackendInfo>,
    tasks: Tasks,
    closed: Arc<AtomicBool>,
}

/// What `GET /files` answers.
#[derive(Deserialize)]
struct Listing {
    keys: Vec<String>,
}

impl Foreign {
    pub(crate) async fn connect(http: Http) -> Result<Self> {
        let mut info = BackendInfo::new("rest", Capabilities::new());
        info.name = "REST".into();
        info.description = format!("{} (here: the plain routes)", env!("CARGO_PKG_DESCRIPTION"));
        info.version = env!("CARGO_PKG_VERSION").into();
        info.limits.metadata = 0;
        info.refused_keys = keys::REFUSED.into();
        let tasks = Tasks::new(http.timeout);
        let foreign = Self { http, info: Arc::new(info), tasks, closed: Arc::default() };
        foreign.health().await?;
        Ok(foreign)
    }

    fn request(&self, method: Method, path: &str) -> Result<Request> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::closed()),
            false => self.http.request(method, path, &[]),
        }
    }

    fn of(&self, method: Method, key: &Key) -> Result<Request> {
        self.request(method, &format!("files/{}", keys::segment(key)))
    }

    /// The size of a value, by the header: what a library takes for the length of the body of an answer to `HEAD` is 0.
    async fn size(&self, key: &Key) -> Result<Option<u64>> {
        let answer = self.http.ask(self.of(Method::HEAD, key)?).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.success()?;
        declared(&answer.headers).map(Some).ok_or_else(|| error::strange("it does not say how large the value is"))
    }

    /// Makes a request that changes something, once.
    async fn write(&self, keys: impl Into<Keys>, request: Request, body: Body) -> Result<Answer> {
        let foreign = self.clone();
        self.tasks.run(keys, move |commit| async move { foreign.attempt(request, body, commit).await }).await
    }

    async fn attempt(self, mut request: Request, body: Body, commit: Arc<Commit>) -> Result<Answer> {
        let (state, progress) = (Arc::new(State::default()), Progress::new());
        if *request.method() == Method::PUT {
            let upload = Upload::new(body, &commit, state.clone(), progress.clone());
            *request.body_mut() = Some(reqwest::Body::wrap(upload));
        } else {
            commit.begin()?;
        }
        let has_body = request.body().is_some();
        let answered = match self.http.send(request, &progress).await {
            Ok(response) => self.http.collect(response).await.map_err(|error| Lost { error, sent: true }),
            Err(lost) => Err(lost),
        };
        if let Some(e) = state.failed() {
            return Err(e);
        }
        match answered {
            // Whoever answers so may have done it all the same.
            Ok(answer) if answer.status.is_server_error() => answer.success().map_err(Error::ambiguous),
            Ok(answer) if !answer.status.is_success() && answer.status != StatusCode::NOT_FOUND => answer.success(),
            Ok(answer) => Ok(answer),
            Err(Lost { error, sent }) if !sent || (has_body && !state.is_whole()) => Err(error),
            Err(Lost { error, .. }) => Err(error.ambiguous()),
        }
    }
}

#[async_trait]
impl StorageBackend for Foreign {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if options.if_match.is_some() || options.if_none_match.is_some() {
            return Err(Error::unsupported("a condition on reads"));
        }
        self.tasks.settled(key).await?;
        let mut request = self.of(Method::GET, key)?;
        let mut wanted = None;
        if let Some(range) = options.range {
            let Some(size) = self.size(key).await? else { return Ok(None) };
            let range = range.resolve(size)?;
            if range.is_empty() {
                return Ok(Some(Object::new(Entry::new(key.clone(), size), Body::default())));
            }
            set(&mut request, RANGE.as_str(), &format!("bytes={}-{}", range.start, range.end - 1))?;
            wanted = Some((range, size));
        }
        let response = self.http.read(request).await?;
        let (there, size) = match response.status() {
            StatusCode::OK => {
                let size = declared(response.headers());
                let size = size.ok_or_else(|| error::strange("it does not say how large the value is"))?;
                (0..size, size)
            }
            StatusCode::PARTIAL_CONTENT => match content_range(response.headers())? {
                (Some(range), size) => (range, size),
                _ => return Err(error::strange("it does not say which range it is")),
            },
            StatusCode::NOT_FOUND => return Ok(None),
            _ => {
                let answer = self.http.collect(response).await?;
                return match answer.success() {
                    Ok(_) => Err(error::strange("it is neither a value nor an error")),
                    Err(e) => Err(e),
                };
            }
        };
        let range = match wanted {
            None if there == (0..size) => there.clone(),
            Some((range, before)) if before == size && there.start <= range.start && range.end <= there.end => range,
            Some((_, before)) if before != size => {
                return Err(Error::new(ErrorKind::Conflict, "the value was written while it was read; read it again"));
            }
            _ => return Err(error::strange("it is another range")),
        };
        let (skip, len) = (range.start - there.start, range.end - range.start);
        let (entry, stream) = (Entry::new(key.clone(), size), pieces(self.http.clone(), response, skip, len));
        let body = match len {
            0 => Body::default(),
            len if len <= SMALL => Body::from_backend(len, stream).bytes(len).await?.into(),
            len => Body::from_backend(len, stream),
        };
        Ok(Some(Object::new(entry, body)))
    }

    async fn put(&self, key: &Key, body: Body, _: PutOptions) -> Result<Entry> {
        self.tasks.settled(key).await?;
        let body = match body.len() {
            Some(len) if len > SMALL => body,
            _ => body.collect(HELD).await?.into(),
        };
        let size = body.len().unwrap_or(0);
        let answer = self.write(key, self.of(Method::PUT, key)?, body).await?;
        answer.success()?;
        Ok(Entry::new(key.clone(), size))
    }

    async fn delete(&self, key: &Key, _: DeleteOptions) -> Result<()> {
        self.tasks.settled(key).await?;
        let answer = self.write(key, self.of(Method::DELETE, key)?, Body::default()).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(()) } else { answer.success().map(drop) }
    }

    async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
        self.tasks.settled(key).await?;
        Ok(self.size(key).await?.map(|size| Entry::new(key.clone(), size)))
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.tasks.settled_prefix(&options.prefix).await?;
        let answer = self.http.ask(self.request(Method::GET, "files")?).await?.success()?;
        let Listing { keys } = answer.json()?;
        // What is no key here is somebody else's.
        let mut keys: Vec<Key> = keys.iter().filter_map(|key| Key::parse(key).ok()).collect();
        keys.retain(|key| key.as_str().starts_with(&options.prefix) && key.check(&self.info).is_ok());
        if let Some(after) = &options.start_after {
            // What lies before may still belong to a common prefix behind it.
            keys.retain(|key| options.delimited || key.as_str() > after.as_str());
        }
        keys.sort();
        keys.dedup();
        let foreign = self.clone();
        let sized = stream::iter(keys).map(move |key| {
            let foreign = foreign.clone();
            async move {
                let size = foreign.size(&key).await?;
                Ok(size.map(|size| Entry::new(key, size)))
            }
        });
        let entries = sized.buffered(AT_ONCE).try_filter_map(|entry| std::future::ready(Ok(entry)));
        Ok(defaults::listing(entries, options))
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        if !prefix.is_empty() {
            return defaults::clear(self, prefix).await;
        }
        self.tasks.settled_prefix("").await?;
        let refused = [ErrorKind::PermissionDenied, ErrorKind::NotFound, ErrorKind::Unsupported];
        let request = self.request(Method::DELETE, "files")?;
        match self.write(Keys::prefix(""), request, Body::default()).await.and_then(Answer::success) {
            Err(e) if refused.contains(&e.kind()) && !e.is_ambiguous() => defaults::clear(self, prefix).await,
            done => done.map(drop),
        }
    }

    async fn health(&self) -> Result<()> {
        // No plain server has a route for that. A key that hardly anybody uses tells as much.
        let answer = self.http.ask(self.request(Method::HEAD, "files/.storage-health")?).await?;
        if answer.status == StatusCode::NOT_FOUND { Ok(()) } else { answer.success().map(drop) }
    }

    async fn disconnect(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("http", &self.http).finish_non_exhaustive()
    }
}
