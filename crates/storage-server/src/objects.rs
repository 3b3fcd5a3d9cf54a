//! Reading and writing one value, whichever route names it.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, VARY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use chrono::DateTime;
use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt;
use storage_core::{
    Condition, DeleteOptions, Entry, ErrorKind, GetOptions, Key, Metadata, Object, PutOptions, StatOptions, VersionId,
};
use storage_rest_wire::{
    EntryJson, ObjectParams, code, etag, etag::Listed, headers, metadata_header, parse_metadata_header, range, time,
};

use crate::{
    answer::{Answer, Failure, set, validators},
    body::{Incoming, explained},
    call::Call,
    resumable::{self, Asked},
};

/// Bodies of at most so many bytes go out in one piece.
const SMALL: u64 = 64 << 10;

/// A value, or a range of it.
pub(crate) async fn read(call: Call, key: Key, params: ObjectParams) -> Result<Response, Failure> {
    call.may_read(&key)?;
    let conditions = Conditions::of(&call)?;
    let mut options = GetOptions::new();
    options.version = params.version.map(VersionId::from);
    options.entry = params.entry.unwrap_or(true);
    options.if_match = conditions.one_match();
    // Where an etag is weak the comparison is the same here.
    options.if_none_match = conditions.one_none_match();
    if call.is_conditional {
        options.range = call.header(RANGE)?.and_then(range::parse);
    }
    let mut object = open(&call, &key, options.clone()).await;
    if options.range.is_some()
        && let (Some(if_range), Ok(Some(found))) = (call.header(IF_RANGE)?, &object)
        && !Listed::parse(if_range).is_ok_and(|listed| listed.has(found.entry.etag.as_ref()))
    {
        options.range = None;
        object = open(&call, &key, options.clone()).await;
    }
    let object = match object {
        Ok(Some(object)) => object,
        Ok(None) => {
            conditions.check(None)?;
            return Err(absent(&key));
        }
        Err(e) if e.kind() == ErrorKind::NotModified => {
            return Ok(not_modified(&call, &key, options.if_none_match.as_ref()));
        }
        Err(e) if e.kind() == ErrorKind::RangeNotSatisfiable => return Err(e.into()),
        Err(e) => return Err(e.into()),
    };
    let Object { entry, body, .. } = object;
    if let Err(unmodified) = conditions.check(Some(&entry)) {
        return match unmodified.0.status {
            304 => Ok(not_modified(&call, &key, entry.etag.as_ref())),
            _ => Err(unmodified),
        };
    }
    let mut map = entry_headers(&call, &entry, options.entry);
    let mut status = StatusCode::OK;
    let mut len = entry.size;
    if let Some(asked) = options.range {
        let found = asked.resolve(entry.size)?;
        if found.is_empty() {
            // HTTP has no empty ranges. What the client may want of this answer is the entry.
            let failure =
                Failure::new(ErrorKind::RangeNotSatisfiable, "the range is empty: it begins at the end of the value");
            let mut answer = failure.into_answer();
            map.remove(CONTENT_TYPE);
            map.extend(answer.headers);
            set(&mut map, CONTENT_RANGE, &range::unsatisfied(entry.size));
            answer.headers = map;
            return Ok(answer.into_response());
        }
        set(&mut map, CONTENT_RANGE, &range::content(&found, entry.size));
        status = StatusCode::PARTIAL_CONTENT;
        len = found.end - found.start;
    }
    map.insert(CONTENT_LENGTH, len.into());
    let body = match body.buffer() {
        Some(buffer) if len <= SMALL || buffer.pieces().len() == 1 => {
            Body::from(buffer.clone().into_bytes().map_err(Failure::from)?)
        }
        _ => stream(&call, body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = map;
    Ok(response)
}

/// The body as a stream that belongs to the transaction, if there is one.
fn stream(call: &Call, body: storage_core::Body) -> Body {
    let lease = call.lease.clone();
    Body::from_stream(body.into_stream().map(move |piece| {
        let _under_lease = &lease;
        piece.inspect_err(|e| tracing::warn!(target: "storage_server", error = ?e, "an answer broke off"))
    }))
}

async fn open(call: &Call, key: &Key, options: GetOptions) -> storage_core::Result<Option<Object>> {
    if options.entry {
        return call.storage.open(key, options).await;
    }
    // The handle always asks for whole entries.
    let info = call.storage.info();
    key.check(info).and(options.check(info))?;
    let found = call.storage.backend().get(key, options).await;
    found.map_err(|e| e.with_operation("get").with_backend(&info.id).with_key(key))
}

/// What is known of a value, without it.
pub(crate) async fn head(call: Call, key: Key, params: ObjectParams) -> Result<Response, Failure> {
    call.may_read(&key)?;
    let conditions = Conditions::of(&call)?;
    let mut options = StatOptions::new();
    options.version = params.version.map(VersionId::from);
    let found = call.storage.stat_with(&key, options).await?;
    if let Err(failed) = conditions.check(found.as_ref()) {
        return match failed.0.status {
            304 => Ok(not_modified(&call, &key, found.as_ref().and_then(|entry| entry.etag.as_ref()))),
            _ => Err(failed),
        };
    }
    let entry = found.ok_or_else(|| absent(&key))?;
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = entry_headers(&call, &entry, true);
    response.headers_mut().insert(CONTENT_LENGTH, entry.size.into());
    Ok(response)
}

/// Writes a value.
pub(crate) async fn write(call: Call, key: Key, body: Body) -> Result<Answer, Failure> {
    call.may_write(&key)?;
    call.no_params()?;
    if call.headers.contains_key(CONTENT_RANGE) {
        return Err(Failure::invalid("a part of a value cannot be written; send the whole without `Content-Range`"));
    }
    let mut options = PutOptions::new();
    options.condition = write_condition(&call)?;
    options.metadata = written_metadata(&call)?.map(Into::into);
    options.source = call.header(headers::SOURCE)?.map(source).transpose()?;
    let status = match options.condition {
        Some(Condition::IfAbsent) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let declared = match resumable::asked(&call, &body)? {
        Asked::Whole { length } => length,
        Asked::Resumable { length } => return resumable::create(call, key, options, length, body).await,
    };
    let Incoming { body, failed } = Incoming::value(&call, body, declared).await?;
    call.write(move |storage| async move {
        let written = storage.put_with(&key, body, options).await;
        written.map(|entry| Answer::written(status, entry)).map_err(|e| explained(e, &failed))
    })
    .await
}

/// Deletes a value.
pub(crate) async fn delete(call: Call, key: Key, params: ObjectParams) -> Result<Answer, Failure> {
    call.may_write(&key)?;
    let mut options = DeleteOptions::new();
    options.version = params.version.map(VersionId::from);
    options.condition = write_condition(&call)?;
    call.write(move |storage| async move {
        storage.delete_with(&key, options).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

pub(crate) fn absent(key: &Key) -> Failure {
    let mut failure = Failure::new(ErrorKind::NotFound, "no value under this key").code(code::ABSENT);
    failure.0.key = Some(key.as_str().to_owned());
    failure
}

fn source(header: &str) -> Result<String, Failure> {
    let text = BASE64URL_NOPAD.decode(header.as_bytes()).ok().and_then(|text| String::from_utf8(text).ok());
    text.ok_or_else(|| Failure::invalid("the header `storage-source` is not base64url (without padding) of UTF-8"))
}

/// The metadata of a write: the header of our own, or the content type alone.
fn written_metadata(call: &Call) -> Result<Option<Metadata>, Failure> {
    if let Some(header) = call.header(headers::METADATA)? {
        return Ok(Some(parse_metadata_header(header)?));
    }
    // A store that keeps no metadata keeps no content type either.
    let keeps = call.storage.info().limits.metadata > 0;
    Ok(call.header(CONTENT_TYPE)?.filter(|_| keeps).map(|media| Metadata::new().content_type(media)))
}

/// What must hold for a write. What this server cannot look at is refused.
fn write_condition(call: &Call) -> Result<Option<Condition>, Failure> {
    if call.headers.contains_key(IF_UNMODIFIED_SINCE) || call.headers.contains_key(IF_MODIFIED_SINCE) {
        return Err(Failure::unsupported("conditions on dates; use etags instead"));
    }
    let if_match = call.header(IF_MATCH)?.map(Listed::parse).transpose()?;
    let if_none_match = call.header(IF_NONE_MATCH)?.map(Listed::parse).transpose()?;
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (None, Some(Listed::Any)) => Ok(Some(Condition::IfAbsent)),
        (Some(Listed::These(etags)), None) => match &etags[..] {
            [(etag, false)] => Ok(Some(Condition::IfMatch(etag.clone()))),
            // A weak one is never the same.
            [(_, true)] => {
                Err(Failure::new(ErrorKind::PreconditionFailed, "weak etags never match `If-Match`; send a strong one"))
            }
            _ => Err(Failure::unsupported("conditions with several etags")),
        },
        _ => Err(Failure::unsupported("this condition; use `If-None-Match: *`, or `If-Match` with one etag")),
    }
}

/// The conditions of a read.
#[derive(Default)]
struct Conditions {
    if_match: Option<Listed>,
    if_none_match: Option<Listed>,
    if_modified_since: Option<DateTime<chrono::FixedOffset>>,
}

impl Conditions {
    fn of(call: &Call) -> Result<Self, Failure> {
        // Most requests have none.
        if !call.is_conditional {
            return Ok(Self::default());
        }
        if call.headers.contains_key(IF_UNMODIFIED_SINCE) {
            return Err(Failure::unsupported("conditions on dates; use etags instead"));
        }
        let if_none_match = call.header(IF_NONE_MATCH)?.map(Listed::parse).transpose()?;
        // A date that is none is as good as no date (RFC 9110, 13.1.3).
        let since = call.header(IF_MODIFIED_SINCE)?.filter(|_| if_none_match.is_none());
        Ok(Self {
            if_match: call.header(IF_MATCH)?.map(Listed::parse).transpose()?,
            if_none_match,
            if_modified_since: since.and_then(|date| DateTime::parse_from_rfc2822(date).ok()),
        })
    }

    /// The one strong etag, which the store itself can compare.
    fn one_match(&self) -> Option<storage_core::Etag> {
        match &self.if_match {
            Some(Listed::These(etags)) if etags.len() == 1 && !etags[0].1 => Some(etags[0].0.clone()),
            _ => None,
        }
    }

    fn one_none_match(&self) -> Option<storage_core::Etag> {
        match &self.if_none_match {
            Some(Listed::These(etags)) if etags.len() == 1 => Some(etags[0].0.clone()),
            _ => None,
        }
    }

    fn check(&self, entry: Option<&Entry>) -> Result<(), Failure> {
        let etag = entry.and_then(|entry| entry.etag.as_ref());
        if let Some(listed) = &self.if_match
            && !(entry.is_some() && listed.has(etag))
        {
            return Err(Failure::new(
                ErrorKind::PreconditionFailed,
                "the etag does not match `If-Match`, or there is no value",
            ));
        }
        let Some(entry) = entry.filter(|_| self.if_none_match.is_some() || self.if_modified_since.is_some()) else {
            return Ok(());
        };
        let same = self.if_none_match.as_ref().is_some_and(|listed| listed.has_weakly(etag));
        let since = self.if_modified_since.map(|date| date.timestamp());
        let modified = entry.modified.map(|modified| DateTime::<chrono::Utc>::from(modified).timestamp());
        if same || since.zip(modified).is_some_and(|(since, modified)| modified <= since) {
            return Err(Failure::new(ErrorKind::NotModified, "the value has not changed"));
        }
        Ok(())
    }
}

fn not_modified(call: &Call, key: &Key, tag: Option<&storage_core::Etag>) -> Response {
    let mut answer = Failure::new(ErrorKind::NotModified, "the value has not changed").into_answer();
    if let Some(tag) = tag {
        set(&mut answer.headers, ETAG, &etag::quoted(tag));
    }
    caching(call, key, &mut answer.headers);
    answer.into_response()
}

/// What caches may do with the answer.
fn caching(call: &Call, key: &Key, map: &mut HeaderMap) {
    let control = match call.lease {
        Some(_) => HeaderValue::from_static("no-store"),
        None => call.app.caching.of(key.as_str()),
    };
    map.insert(CACHE_CONTROL, control);
    map.insert(VARY, HeaderValue::from_static("authorization"));
}

/// The entry as headers: for everybody, and for clients of ours.
fn entry_headers(call: &Call, entry: &Entry, whole: bool) -> HeaderMap {
    let mut map = validators(entry);
    caching(call, &entry.key, &mut map);
    map.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // What is stored here may be anything, a page with scripts for example.
    map.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    map.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    let media = entry.metadata.as_ref().and_then(|metadata| metadata.content_type.as_deref());
    map.insert(CONTENT_TYPE, HeaderValue::from_static(Metadata::DEFAULT_CONTENT_TYPE));
    if let Some(media) = media.filter(|media| media.is_ascii() && media.contains('/')) {
        set(&mut map, CONTENT_TYPE, media);
    }
    if let Some(modified) = entry.modified
        && let Ok(modified) = HeaderValue::try_from(time::http(modified))
    {
        map.insert(LAST_MODIFIED, modified);
    }
    if whole {
        if let Some(metadata) = entry.metadata.as_ref().filter(|metadata| !metadata.is_empty()) {
            set(&mut map, headers::METADATA, &metadata_header(metadata));
        }
        // For clients of the whole contract.
        if call.uri.path().starts_with("/v1/") {
            set(&mut map, headers::ENTRY, &EntryJson::from(entry.clone()).to_header());
        }
    }
    map
}
