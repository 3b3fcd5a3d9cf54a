//! Resumable uploads on the wire, as of draft-ietf-httpbis-resumable-upload-12 (experimental).
//!
//! No interim answers (104) are sent, which hyper cannot; so an upload begins with `Upload-Complete: ?0`, and its bytes follow by `PATCH`.

use std::sync::{Arc, OnceLock};

use axum::{
    body::Body,
    extract::{Request, State as Shared},
    http::{
        HeaderValue, StatusCode,
        header::{ALLOW, CONTENT_TYPE, LOCATION},
    },
};
use http_body::Body as _;
use storage_core::{Condition, Error, ErrorKind, Key, PutOptions, Storage};
use storage_rest_wire::{ConditionJson, Problem, code};

use crate::{
    answer::{Answer, Failure, set},
    app::App,
    body::{digests, explained, no_coding},
    call::Call,
    parts::Parts,
    server::{no_route_here, no_such_method},
    uploads::{Phase, Plan, Session, State, Upload, Uploads, no_upload},
};

/// What the bodies of appends are.
const PARTIAL: &str = "application/partial-upload";
/// The header that says how many bytes have come.
const OFFSET: &str = "upload-offset";
/// The header that says whether these are the last bytes.
const COMPLETE: &str = "upload-complete";
/// The header that says how many bytes there will be.
const LENGTH: &str = "upload-length";
/// The header that says what is too much.
const LIMIT: &str = "upload-limit";
/// The largest integer of a structured field (RFC 9651).
const LARGEST: u64 = 999_999_999_999_999;

/// What a `PUT` asks for.
pub(crate) enum Asked {
    /// A write, of so many bytes if a header says so.
    Whole { length: Option<u64> },
    /// An upload, of which these are the first bytes.
    Resumable { length: Option<u64> },
}

/// What the headers of a `PUT` say of resumable uploads.
pub(crate) fn asked(call: &Call, body: &Body) -> Result<Asked, Failure> {
    if call.headers.contains_key(OFFSET) {
        return Err(Failure::invalid("the header `Upload-Offset` belongs to a `PATCH` of an upload"));
    }
    let (complete, length) = (call.boolean(COMPLETE)?, call.integer(LENGTH)?);
    match (complete, length, body.size_hint().exact()) {
        (Some(false), length, _) => Ok(Asked::Resumable { length }),
        (_, Some(length), Some(len)) if len != length => Err(inconsistent()),
        (_, length, _) => Ok(Asked::Whole { length }),
    }
}

/// Begins an upload, with what has come already.
pub(crate) async fn create(
    call: Call,
    key: Key,
    options: PutOptions,
    length: Option<u64>,
    body: Body,
) -> Result<Answer, Failure> {
    let uploads = call.app.uploads.clone().ok_or_else(|| {
        let detail = "this server takes no resumable uploads; send the whole value, or start it with `--uploads`";
        Failure::new(ErrorKind::Unsupported, detail)
    })?;
    if call.lease.is_some() || options.source.is_some() {
        let detail = "an upload belongs to no transaction, and the store fetches none of it";
        return Err(Failure::new(ErrorKind::Unsupported, detail));
    }
    no_coding(&call)?;
    options.check(call.storage.info())?;
    let (app, most) = (call.app.clone(), call.app.max_value());
    let (len, least) = (body.size_hint().exact(), body.size_hint().lower());
    if length.unwrap_or(0).max(least) > most {
        return Ok(too_large(&app));
    }
    if length.is_some_and(|length| least > length) {
        return Err(inconsistent());
    }
    digests(&call, &["repr-digest"])?;
    let content = digests(&call, &["content-digest"])?;
    let plan = Plan {
        owner: call.grant.name.clone(),
        key,
        metadata: options.metadata.map(Arc::unwrap_or_clone),
        condition: options.condition.as_ref().map(ConditionJson::try_from).transpose()?,
        digest: call.header("repr-digest")?.map(str::to_owned),
    };
    // As a reference, so that it is right behind a proxy that serves these routes below a path of its own.
    let base = if call.uri.path().starts_with("/v1/") { "../uploads/" } else { "../v1/uploads/" };
    let config = app.config.clone();
    call.write(move |_| async move {
        let upload = uploads.create(plan, length, config.max_uploads, config.upload_lifetime).await?;
        let Session { mut state, taken_over } = upload.enter().await;
        let parts = Parts::new(&app, body, length.unwrap_or(most), content, taken_over);
        if let Err(failure) = uploads.append(&upload, &mut state, parts).await {
            // Its client has not heard where it is.
            uploads.remove(&upload, &mut state).await?;
            return if failure.0.status == 413 { Ok(too_large(&app)) } else { Err(failure) };
        }
        debug_assert!(len.is_none_or(|len| len == state.offset), "all of the body is stored");
        let mut answer = described(&app, &upload, &state, StatusCode::CREATED);
        set(&mut answer.headers, LOCATION, &format!("{base}{}", upload.id));
        Ok(answer)
    })
    .await
}

/// How much of an upload has come.
#[utoipa::path(head, path = "/v1/uploads/{id}", tag = "experimental",
    params(("id" = String, Path, description = "the upload, as `Location` named it when it was begun")),
    responses(
        (status = 204, description = "how much has come, and whether the upload is complete", headers(
            ("upload-offset" = u64), ("upload-complete" = String), ("upload-limit" = String))),
        (status = "default", description = "an error"),
    ))]
pub(crate) async fn offset(call: Call) -> Result<Answer, Failure> {
    let (_, upload) = found(&call).await?;
    let Session { state, .. } = upload.enter().await;
    match &state.phase {
        Phase::Gone => Err(no_upload()),
        Phase::Finishing => Err(unknown()),
        Phase::Open | Phase::Done { .. } => Ok(described(&call.app, &upload, &state, StatusCode::NO_CONTENT)),
    }
}

/// Appends to an upload; with the last bytes the value is written.
#[utoipa::path(patch, path = "/v1/uploads/{id}", tag = "experimental",
    params(
        ("id" = String, Path, description = "the upload, as `Location` named it when it was begun"),
        ("upload-offset" = u64, Header, description = "how many bytes have come before"),
        ("upload-complete" = String, Header, description = "`?1` with the last bytes, else `?0`"),
        ("upload-length" = Option<u64>, Header, description = "how many bytes there will be"),
    ),
    request_body(content = Vec<u8>, content_type = "application/partial-upload"),
    responses(
        (status = 200, description = "the value was written", body = storage_rest_wire::EntryJson),
        (status = 201, description = "the value was created", body = storage_rest_wire::EntryJson),
        (status = 204, description = "the bytes are kept"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn append(call: Call, body: Body) -> Result<Answer, Failure> {
    let (uploads, upload) = found(&call).await?;
    let media = call.header(CONTENT_TYPE)?.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(PARTIAL) {
        let failure = Failure::invalid(format!("the body must be a part of an upload; send `Content-Type: {PARTIAL}`"));
        return Err(failure.status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    no_coding(&call)?;
    let needed = |name: &str| Failure::invalid(format!("the header `{name}` is needed to append to an upload"));
    let at = call.integer(OFFSET)?.ok_or_else(|| needed("Upload-Offset"))?;
    let complete = call.boolean(COMPLETE)?.ok_or_else(|| needed("Upload-Complete"))?;
    let (length, content) = (call.integer(LENGTH)?, digests(&call, &["content-digest"])?);
    let (app, len) = (call.app.clone(), body.size_hint().exact());
    call.write(move |storage| async move {
        let Session { mut state, taken_over } = upload.enter().await;
        if let Some(refused) = refused(&state, at, len)? {
            return Ok(refused);
        }
        let end = len.filter(|_| complete).map(|len| at.saturating_add(len));
        let most = app.max_value();
        let Some(length) = agreed([state.length, length, end]) else { return Err(inconsistent()) };
        let over = |limit: u64| at.saturating_add(len.unwrap_or(0)) > limit;
        if length.is_some_and(over) || length.is_some_and(|length| length < at) {
            return Err(inconsistent());
        }
        if over(most) || length.is_some_and(|length| length > most) {
            return Ok(too_large(&app));
        }
        if length != state.length {
            state.length = length;
            uploads.save(&upload, &state).await?;
        }
        let room = length.unwrap_or(most).saturating_sub(at);
        let parts = Parts::new(&app, body, room, content, taken_over);
        match uploads.append(&upload, &mut state, parts).await {
            Err(failure) if failure.0.status == 413 => {
                // The draft has it that an upload ends which got more than was said.
                uploads.remove(&upload, &mut state).await?;
                return if length.is_some() { Err(inconsistent()) } else { Ok(too_large(&app)) };
            }
            appended => appended?,
        }
        match complete {
            false => Ok(described(&app, &upload, &state, StatusCode::NO_CONTENT)),
            true if state.length.is_some_and(|length| length != state.offset) => Err(inconsistent()),
            true => finish(&uploads, &upload, &mut state, &storage).await,
        }
    })
    .await
}

/// Cancels an upload, or forgets that it was complete.
#[utoipa::path(delete, path = "/v1/uploads/{id}", tag = "experimental",
    params(("id" = String, Path, description = "the upload, as `Location` named it when it was begun")),
    responses(
        (status = 204, description = "there is no such upload any more"),
        (status = "default", description = "an error", content_type = "application/problem+json", body = Problem),
    ))]
pub(crate) async fn cancel(call: Call) -> Result<Answer, Failure> {
    let (uploads, upload) = found(&call).await?;
    call.write(move |_| async move {
        let Session { mut state, .. } = upload.enter().await;
        if state.phase == Phase::Gone {
            return Err(no_upload());
        }
        uploads.remove(&upload, &mut state).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    })
    .await
}

/// Says that there are resumable uploads here, and their limits.
pub(crate) async fn options(Shared(app): Shared<Arc<App>>, request: Request) -> Result<Answer, Failure> {
    if app.uploads.is_none() {
        return Err(no_such_method(request.method()));
    }
    let mut answer = Answer::empty(StatusCode::NO_CONTENT);
    let is_upload = request.uri().path().starts_with("/v1/uploads/");
    let allowed = if is_upload { "HEAD, PATCH, DELETE, OPTIONS" } else { "GET, HEAD, PUT, DELETE, OPTIONS" };
    answer.headers.insert(ALLOW, HeaderValue::from_static(allowed));
    answer.headers.insert("accept-patch", HeaderValue::from_static(PARTIAL));
    set(&mut answer.headers, LIMIT, &limits(&app, app.config.upload_lifetime.as_secs()));
    Ok(answer)
}

/// Writes the value, as an ordinary write would.
async fn finish(uploads: &Uploads, upload: &Upload, state: &mut State, storage: &Storage) -> Result<Answer, Failure> {
    let plan = &upload.plan;
    let mut options = PutOptions::new();
    options.metadata = plan.metadata.clone().map(Into::into);
    options.condition = plan.condition.clone().map_or(Ok(None), ConditionJson::condition)?;
    let status = match options.condition {
        Some(Condition::IfAbsent) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    state.length = Some(state.offset);
    state.phase = Phase::Finishing;
    if let Err(failure) = uploads.save(upload, state).await {
        state.phase = Phase::Open;
        return Err(failure);
    }
    let failed = Arc::new(OnceLock::new());
    let body = uploads.body(upload, state.offset, failed.clone());
    let written = storage.put_with(&plan.key, body, options).await;
    if let Err(e) = &written
        && may_come_right(e)
        && failed.get().is_none()
    {
        state.phase = Phase::Open;
        // Else the upload has ended for whoever asks after the next start.
        uploads.save(upload, state).await?;
        return written.map(|entry| Answer::written(status, entry)).map_err(Failure::from);
    }
    let mut answer = match written {
        Ok(entry) => {
            let (etag, version) = (entry.etag.clone(), entry.version.clone());
            let phase = Phase::Done {
                status: status.as_u16(),
                etag: etag.map(|etag| etag.as_str().to_owned()),
                version: version.map(|version| version.as_str().to_owned()),
            };
            uploads.done(upload, state, phase).await;
            Answer::written(status, entry)
        }
        Err(e) => {
            let failure = explained(e, &failed);
            let phase = Phase::Done { status: failure.0.status, etag: None, version: None };
            uploads.done(upload, state, phase).await;
            failure.into_answer()
        }
    };
    answer.headers.insert(COMPLETE, HeaderValue::from_static("?1"));
    Ok(answer)
}

/// Whether nothing was written, and the same write may be done later.
fn may_come_right(e: &Error) -> bool {
    let passing = [ErrorKind::Unavailable, ErrorKind::Timeout, ErrorKind::RateLimited];
    !e.is_ambiguous() && passing.contains(&e.kind())
}

/// The upload that the path names, if the token may write its key.
async fn found(call: &Call) -> Result<(Arc<Uploads>, Arc<Upload>), Failure> {
    let uploads = call.app.uploads.clone().ok_or_else(no_route_here)?;
    call.no_params()?;
    if call.lease.is_some() {
        return Err(Failure::new(ErrorKind::Unsupported, "an upload belongs to no transaction"));
    }
    let id = call.uri.path().rsplit('/').next().unwrap_or_default();
    let upload = uploads.find(id, &call.grant.name).await?;
    // It may have had another scope when it began.
    call.may_write(&upload.plan.key)?;
    Ok((uploads, upload))
}

/// Why nothing can be appended here.
fn refused(state: &State, at: u64, len: Option<u64>) -> Result<Option<Answer>, Failure> {
    match &state.phase {
        Phase::Gone => return Err(no_upload()),
        Phase::Finishing => return Err(unknown()),
        Phase::Done { .. } if len != Some(0) => return Err(inconsistent()),
        Phase::Done { status, .. } => {
            let detail = format!("the upload is complete, and its write was answered with the status {status}");
            let mut failure = Failure::new(ErrorKind::Closed, detail);
            failure.0.about = registered("completed-upload");
            return Err(failure);
        }
        Phase::Open => {}
    }
    if at == state.offset {
        return Ok(None);
    }
    let detail = format!("the next bytes of the upload belong at {}, and not at {at}", state.offset);
    let mut failure = Failure::new(ErrorKind::Conflict, detail);
    failure.0.about = registered("mismatching-upload-offset");
    (failure.0.expected_offset, failure.0.provided_offset) = (Some(state.offset), Some(at));
    let mut answer = failure.into_answer();
    set(&mut answer.headers, OFFSET, &state.offset.to_string());
    answer.headers.insert(COMPLETE, HeaderValue::from_static("?0"));
    Ok(Some(answer))
}

/// The one length that all who name one agree on, if they do.
fn agreed(lengths: [Option<u64>; 3]) -> Option<Option<u64>> {
    let mut named = lengths.into_iter().flatten();
    let first = named.next();
    named.all(|length| Some(length) == first).then_some(first)
}

/// An upload in the headers of an answer.
fn described(app: &App, upload: &Upload, state: &State, status: StatusCode) -> Answer {
    let mut answer = Answer::empty(status);
    let map = &mut answer.headers;
    set(map, OFFSET, &state.offset.to_string());
    set(map, COMPLETE, if matches!(state.phase, Phase::Done { .. }) { "?1" } else { "?0" });
    set(map, LIMIT, &limits(app, upload.age_left()));
    if let Some(length) = state.length {
        set(map, LENGTH, &length.to_string());
    }
    if let Phase::Done { etag, version, .. } = &state.phase {
        let mut entry = storage_core::Entry::new(upload.plan.key.clone(), state.offset);
        entry.etag = etag.clone().map(Into::into);
        entry.version = version.clone().map(Into::into);
        map.extend(crate::answer::validators(&entry));
    }
    answer
}

fn limits(app: &App, age: u64) -> String {
    format!("max-size={}, max-age={}", app.max_value().min(LARGEST), age.min(LARGEST))
}

fn too_large(app: &App) -> Answer {
    let mut answer = crate::body::too_large(app.max_value()).into_answer();
    set(&mut answer.headers, LIMIT, &limits(app, app.config.upload_lifetime.as_secs()));
    answer
}

fn inconsistent() -> Failure {
    let mut failure = Failure::invalid("the lengths that the requests of this upload name, or have, do not agree");
    failure.0.about = registered("inconsistent-upload-length");
    failure
}

/// The server was started anew while the value was written.
fn unknown() -> Failure {
    let detail = "the server ended while it wrote the value of this upload, and does not know whether it has; look what is there";
    let mut failure = Failure::new(ErrorKind::Conflict, detail).code(code::STALE_WRITE_ID);
    failure.0.ambiguous = true;
    failure
}

/// A type of problem that is registered for uploads.
fn registered(name: &str) -> String {
    format!("https://iana.org/assignments/http-problem-types#{name}")
}
