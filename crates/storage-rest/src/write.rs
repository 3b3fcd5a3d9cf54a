//! Writes: each has an id, so that the server can say what became of it when its answer was lost.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use reqwest::{Method, StatusCode, header::CONTENT_TYPE, header::HeaderMap};
use storage_core::{
    Body, Condition, Error, ErrorKind, Key, Result, StatOptions,
    pending::{Commit, Keys},
};
use storage_rest_wire::{WrittenJson, code, headers};
use tokio::time::{timeout, timeout_at};

use crate::{
    connect::{Remote, set},
    error,
    http::{Answer, Lost, Progress},
    upload::{State, Upload},
};

/// How often a write is sent that the server has not got.
const TRIES: usize = 3;
/// Bodies of at most so many bytes go in one piece.
const SMALL: u64 = 256 << 10;

/// A request that changes something.
pub(crate) struct Write {
    method: Method,
    path: String,
    params: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Body,
    /// What must hold of which key, by which it may be told that nothing was done.
    condition: Option<(Key, Condition)>,
}

impl Write {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        let (params, headers) = (Vec::new(), Vec::new());
        Self { method, path: path.into(), params, headers, body: Body::default(), condition: None }
    }

    pub(crate) fn json(path: &str, value: &impl serde::Serialize) -> Result<Self> {
        let body = serde_json::to_vec(value)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "the request cannot be written as JSON").with_source(e))?;
        Ok(Self::new(Method::POST, path).header(CONTENT_TYPE.as_str(), "application/json").body(body.into()))
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn param(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.params.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(crate) fn condition(mut self, key: &Key, condition: Option<&Condition>) -> Self {
        self.condition = condition.map(|condition| (key.clone(), condition.clone()));
        self
    }
}

/// What a request came to.
enum Sent {
    Answer(Answer),
    /// Nothing was done: not even the whole of the request has gone.
    Not(Error),
    /// Nobody knows.
    Lost(Error),
}

impl Remote {
    /// Does a write, and returns the answer of the server, a success.
    pub(crate) async fn write(&self, keys: impl Into<Keys>, write: Write) -> Result<Answer> {
        let remote = self.clone();
        self.tasks.run(keys, move |commit| async move { remote.attempt(write, commit).await }).await
    }

    pub(crate) async fn attempt(self, mut write: Write, commit: Arc<Commit>) -> Result<Answer> {
        if !write.body.is_in_memory() && write.body.len().is_some_and(|len| len <= SMALL) {
            write.body = std::mem::take(&mut write.body).collect(SMALL).await?.into();
        }
        for tries in 1.. {
            let id = self.write_id();
            let (body, again) = match write.body.try_clone() {
                Some(body) => (body, tries < TRIES),
                None => (std::mem::take(&mut write.body), false),
            };
            let mut request = self.build(&write)?;
            let id = id.to_string();
            set(&mut request, headers::WRITE_ID, &id)?;
            let lost = match self.send(request, body, &id, &commit).await {
                Sent::Answer(answer) if is_stale(&answer) => {
                    // It was the first request with this id, so nothing was done: the server was started anew.
                    self.learn().await?;
                    if again {
                        continue;
                    }
                    return Err(Error::new(ErrorKind::Unavailable, "the server was started anew; write again"));
                }
                Sent::Answer(answer) => return answer.success(),
                Sent::Not(e) => return Err(e),
                Sent::Lost(e) => e,
            };
            if lost.kind() == ErrorKind::Timeout {
                // It was asked already, and there is no time left.
                return Err(lost.ambiguous());
            }
            let was_not_done = match self.settle(&id).await {
                Ok(Settled::Done(answer)) => return answer.success(),
                Ok(Settled::Not) => true,
                Ok(Settled::Unknown) => self.still_holds(write.condition.as_ref()).await,
                Err(_) => false,
            };
            match was_not_done {
                true if again && lost.retry_after().is_none() => {}
                true => return Err(lost),
                false => return Err(lost.ambiguous()),
            }
        }
        // The loop ends by its last try.
        Err(error::broke_off().ambiguous())
    }

    fn build(&self, write: &Write) -> Result<reqwest::Request> {
        let params: Vec<(&str, &str)> = write.params.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut request = self.request(write.method.clone(), &write.path, &params)?;
        for (name, value) in &write.headers {
            set(&mut request, name, value)?;
        }
        Ok(request)
    }

    async fn send(&self, mut request: reqwest::Request, body: Body, id: &str, commit: &Arc<Commit>) -> Sent {
        let (state, progress) = (Arc::new(State::default()), Progress::new());
        let small = body.len().is_some_and(|len| len <= SMALL);
        let streamed = match body.into_buffer() {
            Ok(buffer) if small => {
                if let Err(e) = commit.begin() {
                    return Sent::Not(e);
                }
                match buffer.into_bytes() {
                    Ok(bytes) => *request.body_mut() = Some(bytes.into()),
                    Err(e) => return Sent::Not(e),
                }
                false
            }
            whole_or_stream => {
                let body = whole_or_stream.map_or_else(stream, Body::from);
                let upload = Upload::new(body, commit, state.clone(), progress.clone());
                *request.body_mut() = Some(reqwest::Body::wrap(upload));
                true
            }
        };
        let is_whole = || !streamed || state.is_whole();
        let mut answering = pin!(async {
            let response = self.http().send(request, &progress).await?;
            self.http().collect(response).await.map_err(|error| Lost { error, sent: true })
        });
        let answered = loop {
            let (ask_at, end) = progress.until(self.http().timeout);
            match timeout_at(ask_at, &mut answering).await {
                Ok(answered) => break answered,
                Err(_) if progress.until(self.http().timeout).0 > ask_at => {}
                // Without its last bytes the server has nothing to tell of.
                Err(_) if !is_whole() => {
                    if let Ok(answered) = timeout(self.http().timeout / 5, &mut answering).await {
                        break answered;
                    }
                }
                // The answer may be under way still: whichever comes first tells.
                Err(_) => tokio::select! {
                    answered = &mut answering => break answered,
                    settled = timeout_at(end, self.settle(id)) => match settled {
                        Ok(Ok(Settled::Done(answer))) => return Sent::Answer(answer),
                        Ok(Ok(Settled::Not)) => return Sent::Not(error::timed_out()),
                        Ok(Ok(Settled::Unknown) | Err(_)) | Err(_) => {
                            let late = || Err(Lost { error: error::timed_out(), sent: true });
                            break timeout_at(end, answering).await.unwrap_or_else(|_| late());
                        }
                    },
                },
            }
        };
        if let Some(e) = state.failed() {
            return Sent::Not(e);
        }
        match answered {
            Ok(answer) if answer.status.is_success() || error::is_of_server(&answer.headers) => Sent::Answer(answer),
            Ok(answer) => Sent::Lost(error::from_answer(answer.status, &answer.headers, &answer.body)),
            Err(Lost { error, sent }) if !sent || !is_whole() => Sent::Not(error),
            Err(Lost { error, .. }) => Sent::Lost(error),
        }
    }

    /// What became of a write.
    async fn settle(&self, id: &str) -> Result<Settled> {
        // Of the transaction or not: a write id stands for itself.
        let request = self.http().request(Method::POST, &format!("v1/writes/{id}"), &[])?;
        let answer = self.http().ask(request).await?;
        if is_stale(&answer) {
            return Ok(Settled::Unknown);
        }
        let written: WrittenJson = answer.success()?.json()?;
        if !written.done {
            return Ok(Settled::Not);
        }
        let status = StatusCode::from_u16(written.status).map_err(|_| error::strange("it has no status"))?;
        let body = written.body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut headers = HeaderMap::new();
        headers.insert(headers::ERROR, reqwest::header::HeaderValue::from_static("settled"));
        Ok(Settled::Done(Answer { status, headers, body }))
    }

    /// Whether the condition of a write still holds, so that it was not done; by etags that no other write gets.
    async fn still_holds(&self, condition: Option<&(Key, Condition)>) -> bool {
        let Some((key, condition)) = condition else { return false };
        if self.transaction.is_some() || !self.shared.info.capabilities.version_etags || self.learn().await.is_err() {
            return false;
        }
        match self.look(key, StatOptions::new()).await {
            Ok(found) => condition.check(found.as_ref()).is_ok(),
            Err(_) => false,
        }
    }
}

enum Settled {
    Done(Answer),
    /// It was not done, and will not be.
    Not,
    /// The server has forgotten it, or was started anew.
    Unknown,
}

fn stream(stream: storage_core::BodyStream) -> Body {
    match stream.declared_len() {
        Some(len) => Body::with_len(len, stream),
        None => Body::stream(stream),
    }
}

fn is_stale(answer: &Answer) -> bool {
    !answer.status.is_success() && error::problem(&answer.body).is_some_and(|problem| problem.is(code::STALE_WRITE_ID))
}
