//! Adding a value to the node: one file per request, pinned under the store's name, its answer read to the end.
//!
//! The node stores and pins an upload that breaks off, and says so only behind its answer. So the end of the upload is sent only when
//! all of the value is, and the name that the node answers is compared with the one that was worked out here.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cid::Cid;
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, future::BoxFuture, stream};
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use storage_core::{BodyStream, ByteStream, Error, ErrorKind, Result};
use tokio::time::{sleep, timeout};

use crate::{
    error,
    http::Answer,
    node::{Node, arg, lines},
    unixfs::{Builder, CHUNK, Part, WIDTH},
};

/// A form with one file. What separates its parts is random, so that no value holds it.
struct Form(String);

impl Form {
    fn new() -> Self {
        Self(format!("storage-{:032x}", fastrand::u128(..)))
    }

    fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.0)
    }

    fn head(&self, file: &str) -> Bytes {
        let disposition = format!("Content-Disposition: form-data; name=\"file\"; filename=\"{file}\"");
        format!("--{}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n", self.0).into()
    }

    fn tail(&self) -> Bytes {
        format!("\r\n--{}--\r\n", self.0).into()
    }
}

/// A form with this file, which is called so: its content type, and its bytes.
pub(crate) fn form(file: &str, value: &[u8]) -> (String, Vec<u8>) {
    let form = Form::new();
    (form.content_type(), [&form.head(file), value, &form.tail()].concat())
}

/// A line of the answer: first the file's, then that of the directory that holds it, which has no name.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Hash", default)]
    hash: String,
}

/// Content that the node has added, and the directory with it that the node has pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) cid: Cid,
    pub(crate) pin: Cid,
}

impl Node {
    fn add_request(&self, name: &str) -> reqwest::RequestBuilder {
        // Everything that names depend on, since the node's configuration may say otherwise.
        let query = format!(
            "cid-version=1&raw-leaves=true&hash=sha2-256&chunker=size-{CHUNK}&max-file-links={WIDTH}&trickle=false&inline=false\
             &nocopy=false&wrap-with-directory=true&preserve-mode=false&preserve-mtime=false&only-hash=false&fscache=false\
             &progress=false&silent=false&quieter=false&pin=true&pin-name={}",
            arg(name)
        );
        self.request("add", &query)
    }

    /// Adds a value of at most [`CHUNK`] bytes under the name of a file, and pins the directory with that file.
    pub(crate) async fn add_small(&self, file: &str, value: &[u8], expected: Added, name: &str) -> Result<()> {
        let (kind, body) = form(file, value);
        let request = self.add_request(name).header(CONTENT_TYPE, kind).body(body);
        let response = timeout(self.timeout, request.send()).await.map_err(|_| error::timed_out())?;
        same(expected, added(response.map_err(error::from_http)?, self.timeout).await?)
    }

    /// Adds a value that comes in pieces, as the other does. Before the node can pin it, `before` is told what it is, and says what is pinned
    /// for that.
    ///
    /// # Errors
    /// The value's own, and those of the node. Something may be pinned then: what it is, is told if it is known.
    pub(crate) async fn add_stream(
        &self,
        file: &str,
        first: Vec<Bytes>,
        rest: BodyStream,
        name: &str,
        before: impl FnOnce(Part, u64) -> BoxFuture<'static, (Cid, Result<()>)> + Send + 'static,
    ) -> Result<(Part, Cid), (Error, Option<Added>)> {
        let progress = Arc::new(Progress::default());
        let form = Form::new();
        let request = self.add_request(name).header(CONTENT_TYPE, form.content_type());
        let body = upload((form, file.to_owned()), first, rest, progress.clone(), before);
        let send = request.body(reqwest::Body::wrap_stream(body)).send();
        let answered = async {
            let response = send.await.map_err(error::from_http)?;
            added(response, self.timeout).await
        };
        let added = tokio::select! {
            added = answered => added,
            () = progress.stands_still(self.timeout) => Err(error::timed_out()),
        };
        let mut state = progress.state();
        let expected = state.part.map(|(part, pin)| Added { cid: part.cid, pin });
        let known = added.as_ref().ok().copied().or(expected);
        if let Some(e) = state.failed.take() {
            return Err((e, known));
        }
        match (added, state.part.zip(expected)) {
            (Ok(stored), Some((part, expected))) => same(expected, stored).map(|()| part).map_err(|e| (e, known)),
            (Ok(_), None) => Err((broken(), known)),
            (Err(e), _) => Err((e, known)),
        }
    }
}

/// Sends a file that comes in pieces. A piece that fails breaks the request off.
pub(crate) async fn send(request: reqwest::RequestBuilder, pieces: ByteStream, limit: Duration) -> Result<Answer> {
    let form = Form::new();
    let failed: Arc<Mutex<Option<Error>>> = Arc::default();
    let noted = failed.clone();
    let pieces = pieces.map_err(move |e| {
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.clone());
        e
    });
    let (head, tail) = (stream::iter([Ok(form.head("value"))]), stream::iter([Ok(form.tail())]));
    let request = request.header(CONTENT_TYPE, form.content_type());
    let body = reqwest::Body::wrap_stream(head.chain(pieces).chain(tail));
    let answer = match request.body(body).send().await {
        Ok(response) => Answer::of(response, limit).await,
        Err(e) => Err(error::from_http(e)),
    };
    match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(e) => Err(e),
        None => answer,
    }
}

/// What the node answers, to the end: only then is it pinned.
async fn added(response: reqwest::Response, limit: Duration) -> Result<Added> {
    let answer = lines(Answer::of(response, limit).await?);
    futures_util::pin_mut!(answer);
    let (mut file, mut directory) = (None, None);
    while let Some(line) = answer.next().await.transpose()? {
        let line: Line = serde_json::from_slice(&line).map_err(|_| error::unreadable())?;
        let cid = Cid::try_from(line.hash.as_str()).map_err(|_| error::unreadable())?;
        *if line.name.is_empty() { &mut directory } else { &mut file } = Some(cid);
    }
    file.zip(directory).map(|(cid, pin)| Added { cid, pin }).ok_or_else(error::unreadable)
}

fn same(sent: Added, stored: Added) -> Result<()> {
    if sent == stored {
        return Ok(());
    }
    let what = "the IPFS node has stored other content than was sent; check what stands before the node";
    Err(Error::new(ErrorKind::Corrupt, what))
}

fn broken() -> Error {
    Error::new(ErrorKind::Unavailable, "the upload to the IPFS node broke off; try again")
}

/// How far an upload is.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    /// Milliseconds since `begun` when the node last took a piece.
    taken: AtomicU64,
    /// Whether the next piece of the value is being waited for, which may take any time.
    waits: AtomicBool,
    begun: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    part: Option<(Part, Cid)>,
    failed: Option<Error>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed(&self) -> u64 {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.get_or_insert_with(Instant::now).elapsed().as_millis() as u64
    }

    fn touch(&self, waits: bool) {
        self.taken.store(self.elapsed(), Ordering::Release);
        self.waits.store(waits, Ordering::Release);
    }

    /// Returns when the node has taken and answered nothing for so long.
    async fn stands_still(&self, limit: Duration) {
        self.touch(false);
        loop {
            let since = self.elapsed().saturating_sub(self.taken.load(Ordering::Acquire));
            if since > limit.as_millis() as u64 && !self.waits.load(Ordering::Acquire) {
                return;
            }
            sleep(limit.min(Duration::from_secs(1))).await;
        }
    }
}

type Source = stream::Chain<stream::Iter<std::vec::IntoIter<Result<Bytes>>>, BodyStream>;

/// What an upload does next.
enum Step<F> {
    Head(Source, F),
    Value(Source, Box<Builder>, F),
    End,
}

/// The form, piece by piece. When the value fails, the form ends as if it had not: then the node says what it has stored, so that it
/// can be removed.
fn upload<F>(
    form: (Form, String),
    first: Vec<Bytes>,
    rest: BodyStream,
    progress: Arc<Progress>,
    before: F,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static
where
    F: FnOnce(Part, u64) -> BoxFuture<'static, (Cid, Result<()>)> + Send + 'static,
{
    let first: Vec<Result<Bytes>> = first.into_iter().map(Ok).collect();
    let step = Step::Head(stream::iter(first).chain(rest), before);
    let form = Arc::new(form);
    stream::unfold((step, progress), move |(step, progress)| {
        let form = form.clone();
        async move {
            match step {
                Step::Head(source, before) => {
                    progress.touch(false);
                    Some((form.0.head(&form.1), (Step::Value(source, Box::default(), before), progress)))
                }
                Step::Value(mut source, mut builder, before) => {
                    progress.touch(true);
                    let piece = source.next().await;
                    progress.touch(false);
                    match piece {
                        Some(Ok(piece)) => {
                            builder.update(&piece);
                            Some((piece, (Step::Value(source, builder, before), progress)))
                        }
                        Some(Err(e)) => {
                            progress.state().failed = Some(e);
                            Some((form.0.tail(), (Step::End, progress)))
                        }
                        None => {
                            let (part, total) = builder.finish();
                            let (pin, told) = before(part, total).await;
                            progress.state().part = Some((part, pin));
                            progress.state().failed = told.err();
                            Some((form.0.tail(), (Step::End, progress)))
                        }
                    }
                }
                Step::End => None,
            }
        }
        .boxed()
    })
    .map(Ok)
}
