//! Batches: several values in one request.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use storage_core::{
    BatchOptions, Condition, DeleteOptions, Error, ErrorKind, Etag, GetOptions, Key, Object, PutOptions,
    Result as Core, VersionId,
};
use storage_rest_wire::{
    BatchResults, DeleteBatch, EntryJson, Frame, Frames, GetBatch, ItemResult, Problem, PutItem, code,
};

use crate::{
    answer::{Answer, Failure},
    body::{json, whole},
    call::Call,
};

/// Larger values are not sent in a batch.
const LARGE: u64 = 1 << 20;
/// The most bytes of values in the answer to a batch.
const MOST: u64 = 16 << 20;
/// What batches with values are.
const FRAMES: &str = "application/vnd.storage.frames";

/// Reads several values.
#[utoipa::path(post, path = "/v1/batch/get", tag = "v1", request_body = GetBatch,
    responses(
        (status = 200, description = "frames", content_type = "application/vnd.storage.frames", body = Frame),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn get(call: Call, body: Body) -> Result<Response, Failure> {
    call.no_params()?;
    let request: GetBatch = json(&call, body).await?;
    let info = call.storage.info();
    let mut items = Vec::with_capacity(request.items.len());
    bounded(&call, request.items.len())?;
    for item in request.items {
        let key = checked(&call, &item.key)?;
        call.may_read(&key)?;
        let mut options = GetOptions::new();
        options.version = item.version.map(VersionId::from);
        options.check(info)?;
        items.push((key, options));
    }
    let keys: Vec<Key> = items.iter().map(|(key, _)| key.clone()).collect();
    let found = call.storage.backend().get_batch(items).await.map_err(|e| e.with_operation("get_batch"))?;
    let count = found.len() as u64;
    let parts = keys.into_iter().zip(found);
    let begun = (parts, call.lease.clone(), MOST, false);
    let pieces = stream::unfold(begun, move |(mut parts, lease, mut left, ended)| async move {
        let piece = match parts.next() {
            Some((key, found)) => part(key, found, &mut left).await,
            None if ended => return None,
            None => {
                let end = Frame { end: Some(count), ..Frame::default() };
                return Some((Ok(line(&end)), (parts, lease, left, true)));
            }
        };
        Some((Ok::<_, std::convert::Infallible>(piece), (parts, lease, left, ended)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FRAMES));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One value of a batch as it is sent.
async fn part(key: Key, found: Core<Option<Object>>, left: &mut u64) -> Bytes {
    let failed = |e: Error| {
        let error = Failure::from(e.with_operation("get_batch").with_key(&key)).0;
        line(&Frame { error: Some(error), ..Frame::default() })
    };
    let Object { entry, body, .. } = match found {
        Ok(Some(object)) => object,
        Ok(None) => return line(&Frame::default()),
        Err(e) => return failed(e),
    };
    let size = entry.size;
    let mut frame = Frame { entry: Some(EntryJson::from(entry)), ..Frame::default() };
    if size > LARGE || size > *left {
        return line(&frame);
    }
    let value = match body.bytes(size).await {
        Ok(value) if value.len() as u64 == size => value,
        Ok(_) => return failed(Error::new(ErrorKind::Unavailable, "the store sent a part of the value; try again")),
        Err(e) => return failed(e),
    };
    *left -= size;
    frame.body = Some(size);
    let mut piece = line(&frame).to_vec();
    piece.extend_from_slice(&value);
    piece.into()
}

fn line(frame: &Frame) -> Bytes {
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Writes several values.
#[utoipa::path(post, path = "/v1/batch/put", tag = "v1",
    params(("atomic" = Option<bool>, Query, description = "all or nothing")),
    request_body(content = PutItem, content_type = "application/vnd.storage.frames"),
    responses(
        (status = 200, description = "one result for each item", body = BatchResults),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn put(call: Call, body: Body) -> Result<Answer, Failure> {
    let Atomic { atomic } = call.params()?;
    if call.header(CONTENT_TYPE)?.is_none_or(|media| !media.eq_ignore_ascii_case(FRAMES)) {
        let failure = Failure::invalid(format!("the body must be frames; send `Content-Type: {FRAMES}`"));
        return Err(failure.status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let mut frames = Frames::new(|item: &PutItem| item.body);
    frames.push(&whole(&call, body).await?);
    let mut items = Vec::new();
    while let Some((item, value)) = frames.next_part()? {
        bounded(&call, items.len() + 1)?;
        let key = checked(&call, &item.key)?;
        call.may_write(&key)?;
        let mut options = PutOptions::new();
        options.metadata = item.metadata.map(Into::into);
        options.condition = item.condition.map_or(Ok(None), |condition| condition.condition())?;
        options.source = item.source;
        items.push((key, value, options));
    }
    if !frames.is_empty() {
        return Err(Failure::invalid("the last part of the batch is not whole").code(code::BROKEN_BODY));
    }
    call.write(move |storage| async move {
        let results = storage.put_batch_with(items, BatchOptions::new().atomic(atomic)).await?;
        let results = results.into_iter().map(|result| match result {
            Ok(mut entry) => {
                entry.metadata = None;
                ItemResult { entry: Some(entry.into()), error: None }
            }
            Err(e) => failed(e),
        });
        Ok(Answer::json(StatusCode::OK, &BatchResults { results: results.collect() }))
    })
    .await
}

/// Deletes several values.
#[utoipa::path(post, path = "/v1/batch/delete", tag = "v1", request_body = DeleteBatch,
    responses(
        (status = 200, description = "one result for each item", body = BatchResults),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn delete(call: Call, body: Body) -> Result<Answer, Failure> {
    call.no_params()?;
    let request: DeleteBatch = json(&call, body).await?;
    bounded(&call, request.items.len())?;
    let mut items = Vec::with_capacity(request.items.len());
    for item in request.items {
        let key = checked(&call, &item.key)?;
        call.may_write(&key)?;
        let mut options = DeleteOptions::new();
        options.version = item.version.map(VersionId::from);
        options.condition = item.if_match.map(|etag| Condition::IfMatch(Etag::from(etag)));
        items.push((key, options));
    }
    call.write(move |storage| async move {
        let results = storage.delete_batch_with(items, BatchOptions::new().atomic(request.atomic)).await?;
        let results = results.into_iter().map(|result| result.map_or_else(failed, |()| ItemResult::default()));
        Ok(Answer::json(StatusCode::OK, &BatchResults { results: results.collect() }))
    })
    .await
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Atomic {
    atomic: bool,
}

fn failed(e: Error) -> ItemResult {
    ItemResult { entry: None, error: Some(Failure::from(e).0) }
}

fn checked(call: &Call, key: &str) -> Result<Key, Failure> {
    let key = Key::parse(key)?;
    key.check(call.storage.info())?;
    Ok(key)
}

fn bounded(call: &Call, items: usize) -> Result<(), Failure> {
    let most = call.app.config.max_batch;
    match items <= most {
        true => Ok(()),
        false => Err(Failure::new(ErrorKind::TooLarge, format!("the batch has more than {most} items; send several"))),
    }
}
