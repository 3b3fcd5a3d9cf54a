//! The whole contract below `/v1`, but for batches and transactions.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use storage_core::{
    CopyOptions, EntryStream, Error, ErrorKind, Filter, Key, ListItem, ListOptions, PresignOptions, Query,
    RenameOptions, StatOptions, VersionId,
};
use storage_rest_wire::{
    ClearRequest, CopyRequest, EntryJson, Line, ListParams, ObjectParams, PresignRequest, PresignedJson, Problem,
    RenameRequest, ServerJson, key,
};

use crate::{
    answer::{Answer, Failure},
    app::App,
    body::json,
    call::Call,
    files::{ObjectParamsDoc, delete_params},
    objects::{self, absent},
};

/// How many lines go out together, if they are there.
const TOGETHER: usize = 256;

/// What the server says about itself.
#[utoipa::path(get, path = "/v1", tag = "v1",
    responses(
        (status = 200, description = "server, store and access", body = ServerJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn about(State(app): State<Arc<App>>, call: Call) -> Result<Answer, Failure> {
    call.no_params()?;
    Ok(Answer::json(StatusCode::OK, &app.describe(&call.grant.access)))
}

/// Reads a value.
#[utoipa::path(get, path = "/v1/objects/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366), ObjectParamsDoc),
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
#[utoipa::path(head, path = "/v1/objects/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366), ObjectParamsDoc),
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
#[utoipa::path(put, path = "/v1/objects/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "it was written", body = EntryJson),
        (status = 201, description = "it was created; or an upload was begun, where `Location` says, without a body", body = EntryJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn put(call: Call, body: Body) -> Result<Answer, Failure> {
    let key = named(&call)?;
    objects::write(call, key, body).await
}

/// Deletes a value, which need not be there.
#[utoipa::path(delete, path = "/v1/objects/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366), ("version" = Option<String>, Query)),
    responses(
        (status = 204, description = "it is not there"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let (key, params) = (named(&call)?, delete_params(&call)?);
    objects::delete(call, key, params).await
}

/// The entry of a value.
#[utoipa::path(get, path = "/v1/entries/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366), ("version" = Option<String>, Query)),
    responses(
        (status = 200, description = "the entry", body = EntryJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn stat(call: Call) -> Result<Answer, Failure> {
    let (key, params): (_, ObjectParams) = (named(&call)?, delete_params(&call)?);
    call.may_read(&key)?;
    let mut options = StatOptions::new();
    options.version = params.version.map(VersionId::from);
    let entry = call.storage.stat_with(&key, options).await?.ok_or_else(|| absent(&key))?;
    Ok(Answer::json(StatusCode::OK, &EntryJson::from(entry)))
}

/// The versions of a value, newest first.
#[utoipa::path(get, path = "/v1/versions/{key}", tag = "v1",
    params(("key" = String, Path, description = "the key in base64url", pattern = "^[A-Za-z0-9_-]+$", max_length = 1366)),
    responses(
        (status = 200, description = "lines of entries", content_type = "application/x-ndjson", body = Line),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn versions(call: Call) -> Result<Response, Failure> {
    let key = named(&call)?;
    call.no_params()?;
    call.may_read(&key)?;
    let versions = call.storage.versions(&key).await?;
    Ok(entries(&call, versions))
}

/// Entries and common prefixes, in the order of keys.
#[utoipa::path(get, path = "/v1/list", tag = "v1",
    params(
        ("prefix" = Option<String>, Query, description = "only keys that begin so"),
        ("delimited" = Option<bool>, Query, description = "fold keys with a `/` behind the prefix"),
        ("start_after" = Option<String>, Query, description = "only items behind this text"),
        ("limit" = Option<usize>, Query, description = "at most so many items"),
        ("metadata" = Option<bool>, Query, description = "with metadata"),
        ("etags" = Option<bool>, Query, description = "with etags and dates of creation"),
    ),
    responses(
        (status = 200, description = "lines of items", content_type = "application/x-ndjson", body = Line),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn list(call: Call) -> Result<Response, Failure> {
    let params: ListParams = call.params()?;
    call.may_read_prefix(&params.prefix)?;
    let listing = call.storage.list_with(ListOptions::from(params)).await?;
    let lines = listing.map(|item| match item? {
        ListItem::Entry(entry) => Ok(Line::Entry(Box::new(entry.into()))),
        ListItem::Prefix(prefix) => Ok(Line::Prefix(prefix)),
        _ => Err(Error::unsupported("an item of this listing")),
    });
    Ok(answer_lines(&call, lines))
}

/// The entries that answer a query, in its order.
#[utoipa::path(post, path = "/v1/query", tag = "v1",
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "lines of entries", content_type = "application/x-ndjson", body = Line),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn query(call: Call, body: Body) -> Result<Response, Failure> {
    call.no_params()?;
    let query: Query = json(&call, body).await?;
    call.may_read_prefix(&query.prefix)?;
    let count = |filter: &Filter| match filter {
        Filter::AnyTag(tags) | Filter::AllTags(tags) => 1 + tags.len(),
        _ => 1,
    };
    let most = call.app.config.max_filters;
    if query.filters.iter().map(count).sum::<usize>() > most {
        return Err(Failure::new(ErrorKind::TooLarge, format!("the query has more than {most} filters and tags")));
    }
    let found = call.storage.query(query).await?;
    Ok(entries(&call, found))
}

/// Deletes all keys that begin so.
#[utoipa::path(post, path = "/v1/clear", tag = "v1", request_body = ClearRequest,
    responses(
        (status = 204, description = "none is left"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn clear(call: Call, body: Body) -> Result<Answer, Failure> {
    call.no_params()?;
    let ClearRequest { prefix } = json(&call, body).await?;
    call.may_clear(&prefix)?;
    call.write(move |storage| async move {
        storage.clear_prefix(&prefix).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

/// Copies a value.
#[utoipa::path(post, path = "/v1/copy", tag = "v1", request_body = CopyRequest,
    responses(
        (status = 200, description = "the target", body = EntryJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn copy(call: Call, body: Body) -> Result<Answer, Failure> {
    call.no_params()?;
    let request: CopyRequest = json(&call, body).await?;
    let (from, to) = (Key::parse(&request.from)?, Key::parse(&request.to)?);
    call.may_read(&from)?;
    call.may_write(&to)?;
    let mut options = CopyOptions::new();
    options.version = request.version.map(VersionId::from);
    options.metadata = request.metadata.map(Into::into);
    options.condition = request.condition.map_or(Ok(None), |condition| condition.condition())?;
    call.write(move |storage| async move {
        let entry = storage.copy_with(&from, &to, options).await?;
        Ok(Answer::written(StatusCode::OK, entry))
    })
    .await
}

/// Moves a value.
#[utoipa::path(post, path = "/v1/rename", tag = "v1", request_body = RenameRequest,
    responses(
        (status = 200, description = "the target", body = EntryJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn rename(call: Call, body: Body) -> Result<Answer, Failure> {
    call.no_params()?;
    let request: RenameRequest = json(&call, body).await?;
    let (from, to) = (Key::parse(&request.from)?, Key::parse(&request.to)?);
    call.may_read(&from)?;
    call.may_write(&from)?;
    call.may_write(&to)?;
    let mut options = RenameOptions::new();
    options.condition = request.condition.map_or(Ok(None), |condition| condition.condition())?;
    call.write(move |storage| async move {
        let entry = storage.rename_with(&from, &to, options).await?;
        Ok(Answer::written(StatusCode::OK, entry))
    })
    .await
}

/// Signs a request of the store's own that anybody can send for a while.
#[utoipa::path(post, path = "/v1/presign", tag = "v1", request_body = PresignRequest,
    responses(
        (status = 200, description = "the request", body = PresignedJson),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn presign(call: Call, body: Body) -> Result<Answer, Failure> {
    call.no_params()?;
    let request: PresignRequest = json(&call, body).await?;
    let (key, method) = (Key::parse(&request.key)?, request.parsed_method()?);
    if method.reads() {
        call.may_read(&key)?
    } else {
        call.may_write(&key)?
    }
    let mut options = PresignOptions::get(std::time::Duration::from_millis(request.expires_in_ms));
    options.method = method;
    (options.content_type, options.content_length) = (request.content_type, request.content_length);
    let signed = call.storage.presign(&key, options).await?;
    let signed = PresignedJson {
        method: signed.method.as_str().into(),
        url: signed.url,
        headers: signed.headers,
        expires_in_ms: signed.expires_in.as_millis().try_into().unwrap_or(u64::MAX),
    };
    Ok(Answer::json(StatusCode::OK, &signed))
}

/// Whether the store can be used.
#[utoipa::path(get, path = "/health", tag = "operations", security(()),
    responses(
        (status = 200, description = "it can"),
        (status = "default", description = "it cannot", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn health(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    // Whoever asks without a token hears no more than the kind.
    app.storage.health().await.map_err(|e| {
        tracing::warn!(target: "storage_server", error = ?e, "the store is not healthy");
        Failure::new(ErrorKind::Unavailable, format!("the store cannot be used ({})", e.code()))
    })?;
    let mut response = Json(serde_json::json!({ "status": "ok" })).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn named(call: &Call) -> Result<Key, Failure> {
    Ok(key::decode(call.uri.path().rsplit('/').next().unwrap_or_default())?)
}

fn entries(call: &Call, entries: EntryStream) -> Response {
    answer_lines(call, entries.map(|entry| Ok(Line::Entry(Box::new(entry?.into())))))
}

/// Lines, and one behind them that says whether they are all.
fn answer_lines(call: &Call, lines: impl Stream<Item = storage_core::Result<Line>> + Send + 'static) -> Response {
    let (lease, mut count, mut failed) = (call.lease.clone(), 0_u64, false);
    let ended = lines.map(Some).chain(stream::once(std::future::ready(None))).map(move |line| match line {
        Some(Ok(line)) => {
            count += 1;
            Some(line)
        }
        Some(Err(e)) => {
            failed = true;
            Some(Line::Error(Failure::from(e).0))
        }
        None if failed => None,
        None => Some(Line::End(count)),
    });
    let pieces = ended.ready_chunks(TOGETHER).map(move |lines| {
        let _under_lease = &lease;
        let mut piece = Vec::new();
        lines.into_iter().flatten().for_each(|line| piece.extend_from_slice(&line.to_bytes()));
        Ok::<_, std::convert::Infallible>(piece)
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
