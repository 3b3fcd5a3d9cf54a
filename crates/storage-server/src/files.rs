//! The six plain routes: values below `/files`, each under one percent-encoded segment.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL, header::CONTENT_TYPE},
    response::Response,
};
use futures_util::{StreamExt, stream};
use storage_core::{Key, ListOptions};
use storage_rest_wire::{ObjectParams, Problem, key};

use crate::{
    answer::{Answer, Failure},
    app::App,
    call::Call,
    objects,
};

/// How many lines or keys go out together, if they are there.
const TOGETHER: usize = 256;

/// Reads a value.
#[utoipa::path(get, path = "/files/{key}", tag = "files",
    params(("key" = String, Path, description = "the key, one percent-encoded segment"), ObjectParamsDoc),
    responses(
        (status = 200, description = "the value", content_type = "*/*", body = Vec<u8>),
        (status = 206, description = "the range", content_type = "*/*", body = Vec<u8>),
        (status = 304, description = "the value has not changed"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn get(call: Call) -> Result<Response, Failure> {
    let (key, params) = (named(&call)?, call.params()?);
    objects::read(call, key, params).await
}

/// Describes a value.
#[utoipa::path(head, path = "/files/{key}", tag = "files",
    params(("key" = String, Path, description = "the key, one percent-encoded segment"), ObjectParamsDoc),
    responses(
        (status = 200, description = "the value's headers"),
        (status = 304, description = "the value has not changed"),
        (status = "default", description = "an error"),
    ))]
pub(crate) async fn head(call: Call) -> Result<Response, Failure> {
    let (key, params) = (named(&call)?, call.params()?);
    objects::head(call, key, params).await
}

/// Writes a value; or begins a resumable upload (experimental), with the header `Upload-Complete: ?0` and perhaps `Upload-Length`.
#[utoipa::path(put, path = "/files/{key}", tag = "files",
    params(("key" = String, Path, description = "the key, one percent-encoded segment")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "it was written", body = storage_rest_wire::EntryJson),
        (status = 201, description = "it was created; or an upload was begun, where `Location` says, without a body", body = storage_rest_wire::EntryJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn put(call: Call, body: Body) -> Result<Answer, Failure> {
    let key = named(&call)?;
    objects::write(call, key, body).await
}

/// Deletes a value, which need not be there.
#[utoipa::path(delete, path = "/files/{key}", tag = "files",
    params(("key" = String, Path, description = "the key, one percent-encoded segment"), ("version" = Option<String>, Query)),
    responses(
        (status = 204, description = "it is not there"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let (key, params) = (named(&call)?, delete_params(&call)?);
    objects::delete(call, key, params).await
}

/// All keys, in order.
#[utoipa::path(get, path = "/files", tag = "files",
    responses(
        (status = 200, description = "the keys", body = Keys),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn list(call: Call) -> Result<Response, Failure> {
    call.no_params()?;
    let prefix = call.grant.access.prefix.clone();
    call.may_read_prefix(&prefix)?;
    let listing = call.storage.list_with(ListOptions::new().prefix(prefix).etags(false)).await?;
    let keys = storage_core::defaults::entries(listing).enumerate().map(|(n, entry)| {
        let key = serde_json::to_string(entry?.key.as_str()).unwrap_or_default();
        Ok(if n == 0 { key } else { format!(",{key}") })
    });
    let text = |text: &str| stream::once(std::future::ready(Ok(text.to_owned())));
    let (lease, whole) = (call.lease.clone(), text("{\"keys\":[").chain(keys).chain(text("]}")));
    // A listing that breaks off breaks the answer off, too: its end is missing then.
    let pieces = whole.ready_chunks(TOGETHER).map(move |texts| {
        let _under_lease = &lease;
        texts.into_iter().collect::<storage_core::Result<String>>()
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Deletes everything, within the prefix of the token.
#[utoipa::path(delete, path = "/files", tag = "files",
    responses(
        (status = 204, description = "there is nothing left"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn clear(call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    let prefix = call.grant.access.prefix.clone();
    call.may_clear(&prefix)?;
    call.write(move |storage| async move {
        storage.clear_prefix(&prefix).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

/// What `GET /files` answers.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes an answer that is streamed")]
pub(crate) struct Keys {
    keys: Vec<String>,
}

/// The parameters of requests for a value.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes parameters that are read elsewhere")]
pub(crate) struct ObjectParamsDoc {
    /// This version instead of the newest.
    version: Option<String>,
    /// `false`: the answer need not hold more of the entry than its size, etag and version.
    entry: Option<bool>,
}

/// A delete has no use for the entry.
pub(crate) fn delete_params(call: &Call) -> Result<ObjectParams, Failure> {
    let params: ObjectParams = call.params()?;
    match params.entry {
        None => Ok(params),
        Some(_) => Err(Failure::invalid("the parameter `entry` is for reads")),
    }
}

/// The key that the path names.
fn named(call: &Call) -> Result<Key, Failure> {
    let path = call.uri.path();
    let key = key::parse_segment(path.rsplit('/').next().unwrap_or_default())?;
    match key::refused(&key) {
        None => Ok(key),
        Some(_) => Err(Failure::new(
            storage_core::ErrorKind::InvalidKey,
            "clients and proxies change such keys on their way; use `/v1/objects/` and the key in base64url",
        )),
    }
}

/// A path of several segments, or of none.
pub(crate) async fn no_key(State(_): State<Arc<App>>, _: Request) -> Failure {
    let detail = "a key is one segment of the path; write each `/` of it as `%2F`";
    Failure::new(storage_core::ErrorKind::InvalidKey, detail)
}
