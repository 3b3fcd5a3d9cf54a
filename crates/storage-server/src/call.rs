//! A request that was let in: who asks, of which transaction it is, and what it may do.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Query},
    http::{HeaderMap, Method, Uri, request::Parts},
};
use serde::de::{
    DeserializeOwned,
    value::{self, MapDeserializer},
};
use storage_core::{Key, Storage};
use storage_rest_wire::{WriteId, code, headers};

use crate::{
    answer::{Answer, Failure},
    app::App,
    tokens::Grant,
    transactions::Lease,
    writes::{Claim, Outcome, lost, stale},
};

pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) grant: Arc<Grant>,
    /// The store, or the transaction that the request belongs to.
    pub(crate) storage: Storage,
    /// Keeps the transaction from being rolled back.
    pub(crate) lease: Option<Arc<Lease>>,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    /// Whether there are headers with conditions, or a range.
    pub(crate) is_conditional: bool,
    write_id: Option<WriteId>,
    method: Method,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let grant = parts
            .extensions
            .get::<Arc<Grant>>()
            .cloned()
            .ok_or_else(|| Failure::denied("the request was not authenticated"))?;
        let headers = std::mem::take(&mut parts.headers);
        let (mut has_ours, mut is_conditional) = (false, false);
        for name in headers.keys().map(|name| name.as_str()) {
            if name.starts_with("storage-") {
                has_ours = true;
                if !headers::OF_REQUESTS.contains(&name) {
                    return Err(Failure::invalid(format!("unknown header `{name}`; see the protocol")));
                }
            }
            is_conditional |= name == "range" || name.starts_with("if-");
        }
        // Most requests have none of them.
        let ours = |name| if has_ours { text(&headers, name) } else { Ok(None) };
        let lease = match ours(headers::TRANSACTION)? {
            Some(id) => Some(Arc::new(app.transactions.lease(id, &grant.name)?)),
            None => None,
        };
        let write_id = ours(headers::WRITE_ID)?.map(str::parse).transpose()?;
        let storage = lease.as_ref().map_or_else(|| app.storage.clone(), |lease| lease.storage());
        let (method, uri) = (parts.method.clone(), std::mem::take(&mut parts.uri));
        Ok(Self { app: app.clone(), grant, storage, lease, headers, uri, is_conditional, write_id, method })
    }
}

impl Call {
    /// The one text of a header.
    pub(crate) fn header(&self, name: impl AsRef<str>) -> Result<Option<&str>, Failure> {
        text(&self.headers, name.as_ref())
    }

    /// A header that is a boolean as of RFC 9651. What is none is refused, though the draft of resumable uploads would have it ignored: a part
    /// must not be taken for the whole.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.header(name)?.map(|text| text.split(';').next().unwrap_or_default().trim()) {
            None => Ok(None),
            Some("?1") => Ok(Some(true)),
            Some("?0") => Ok(Some(false)),
            Some(_) => Err(Failure::invalid(format!("the header `{name}` must be `?0` or `?1`"))),
        }
    }

    /// A header that is a number of bytes, an integer as of RFC 9651 that is not negative.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.header(name)? else { return Ok(None) };
        let digits = text.split(';').next().unwrap_or_default().trim();
        let legal = (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| legal);
        number.map(Some).ok_or_else(|| Failure::invalid(format!("the header `{name}` must be a number of bytes")))
    }

    /// The parameters of the request, none unknown.
    pub(crate) fn params<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.uri.query().is_none() {
            let none = MapDeserializer::<_, value::Error>::new(std::iter::empty::<(&str, &str)>());
            if let Ok(params) = T::deserialize(none) {
                return Ok(params);
            }
        }
        // It says what is wrong with them.
        Query::try_from_uri(&self.uri)
            .map(|Query(params)| params)
            .map_err(|e| Failure::invalid(format!("invalid query parameters: {}", e.body_text())))
    }

    /// That there are no parameters.
    pub(crate) fn no_params(&self) -> Result<(), Failure> {
        match self.uri.query() {
            None | Some("") => Ok(()),
            Some(_) => Err(Failure::invalid("this request takes no parameters")),
        }
    }

    pub(crate) fn may_read(&self, key: &Key) -> Result<(), Failure> {
        self.may_read_prefix(key.as_str())
    }

    /// Whether all keys that begin so may be read.
    pub(crate) fn may_read_prefix(&self, prefix: &str) -> Result<(), Failure> {
        self.may(self.grant.access.read, "read", prefix)
    }

    pub(crate) fn may_write(&self, key: &Key) -> Result<(), Failure> {
        self.may(self.grant.access.write, "write", key.as_str())
    }

    /// Whether all keys that begin so may be deleted at once.
    pub(crate) fn may_clear(&self, prefix: &str) -> Result<(), Failure> {
        let access = &self.grant.access;
        if prefix.is_empty() || prefix == access.prefix {
            let what =
                if self.app.is_private() { "the scope `clear` is needed" } else { "start it with `--allow-clear`" };
            let denied = || Failure::denied(format!("deleting all values at once is not permitted; {what}"));
            return if access.clear && access.write { Ok(()) } else { Err(denied()) };
        }
        self.may(access.write, "write", prefix)
    }

    fn may(&self, allowed: bool, what: &str, key_or_prefix: &str) -> Result<(), Failure> {
        if !allowed {
            return Err(Failure::denied(format!("the token lacks the scope `{what}`")));
        }
        match key_or_prefix.starts_with(&self.grant.access.prefix) {
            true => Ok(()),
            false => Err(Failure::denied("the token is for keys with another prefix; `GET /v1` says which")),
        }
    }

    /// Does a write, once for its write id, to its end even if the client goes.
    pub(crate) async fn write<F>(self, work: impl FnOnce(Storage) -> F) -> Result<Answer, Failure>
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        let Self { app, grant, storage, lease, write_id, method, uri, .. } = self;
        let target = write_id.as_ref().map(|_| format!("{method} {uri}")).unwrap_or_default();
        let work = work(storage);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let owner = app.clone();
        app.tasks.spawn(async move {
            let done = async {
                let running = match &write_id {
                    None => None,
                    Some(id) => match owner.writes.claim(&grant.name, id, &target)? {
                        Claim::New(running) => Some(running),
                        Claim::Known(known) => {
                            return match known.outcome().await? {
                                Outcome::Answered(answer) => Ok(answer),
                                Outcome::Void => Err(stale()),
                            };
                        }
                    },
                };
                let done = work.await;
                if let Some(running) = running {
                    running.finish(match &done {
                        Ok(answer) => Outcome::Answered(answer.clone()),
                        Err(failure) if failure.0.is(code::BROKEN_BODY) => Outcome::Void,
                        Err(failure) => Outcome::Answered(failure.clone().into_answer()),
                    });
                }
                done
            };
            let done = done.await;
            drop(lease);
            // The client may have gone.
            let _ = sender.send(done);
        });
        answer.await.unwrap_or_else(|_| Err(lost()))
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failure> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| Failure::invalid(format!("the header `{name}` is not ASCII")))
        }
        _ => Err(Failure::invalid(format!("the header `{name}` occurs more than once"))),
    }
}
