//! Objects: read, written whole, copied, deleted.

use chrono::{DateTime, NaiveDateTime, Utc};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED},
};
use http_body_util::BodyExt;

use crate::{
    emulator::{Emulator, Resource},
    refusal::{Body, Refusal, Result, whole, xml},
    request::{Asked, decode, meta},
};

/// A date as HTTP has it.
const DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// How often a read begins again, because a write came between the two requests that it takes.
const AGAIN: usize = 20;
/// The condition on writes.
const IF_GENERATION: &str = "x-goog-if-generation-match";

/// `GET` and `HEAD`.
pub(crate) async fn read(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    asked.only_headers(&["if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "range"])?;
    let generation = asked.parameter("generation");
    for _ in 0..AGAIN {
        let Some(object) = emulator.object(&asked.bucket, &asked.name, generation).await? else {
            return Err(absent(emulator, &asked.bucket).await?);
        };
        let mut answer = Response::new(whole(""));
        *answer.headers_mut() = describe(&object)?;
        if conditions(asked, &object)? == Same::Yes {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(answer);
        }
        let size = object.size()?;
        let range = asked.header("range")?.map(|range| positions(range, size)).transpose()?;
        let length = range.as_ref().map_or(size, |range| range.end - range.start);
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
        let mut header = None;
        if let Some(range) = &range {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let (start, last) = (range.start, range.end - 1);
            answer.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes {start}-{last}/{size}"))?);
            header = Some(format!("bytes={start}-{last}"));
        }
        if asked.method == "HEAD" || size == 0 {
            return Ok(answer);
        }
        let found = emulator.value(&asked.bucket, &asked.name, &object.generation, header.as_deref()).await?;
        if let Some(found) = found {
            *answer.body_mut() = found.into_body().map_err(std::io::Error::other).boxed_unsync();
            return Ok(answer);
        }
    }
    Err(Refusal::emulator("the object changes faster than it can be read"))
}

/// `PUT`.
pub(crate) async fn write(emulator: &Emulator, asked: &Asked, body: Body) -> Result<Response<Body>> {
    let attributes = asked.attributes(&[IF_GENERATION])?;
    let condition = asked.header(IF_GENERATION)?;
    if condition.is_some_and(|generation| generation.parse::<i64>().is_err()) {
        return Err(Refusal::invalid(format!("{IF_GENERATION} is no number")));
    }
    let object = emulator.insert(&asked.bucket, &asked.name, &attributes, body, condition).await?;
    written(&object, Response::new(whole("")))
}

/// `PUT` with a source.
pub(crate) async fn copy(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    asked.only_headers(&["x-goog-copy-source"])?;
    let source = decode(asked.header("x-goog-copy-source")?.unwrap_or_default())?;
    let source = source.trim_start_matches('/').split_once('/');
    let source = source.ok_or_else(|| Refusal::invalid("x-goog-copy-source is no bucket and object"))?;
    if !emulator.has_bucket(&asked.bucket).await? {
        return Err(Refusal::no_bucket());
    }
    let Some(object) = emulator.rewrite(source, (&asked.bucket, &asked.name), None).await? else {
        return Err(absent(emulator, source.0).await?);
    };
    let time = object.updated()?.format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let etag = object.etag()?;
    written(
        &object,
        xml(&format!("<CopyObjectResult><LastModified>{time}</LastModified><ETag>{etag}</ETag></CopyObjectResult>")),
    )
}

/// `DELETE`.
pub(crate) async fn delete(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    asked.only_headers(&["content-type"])?;
    if !emulator.delete(&asked.bucket, &asked.name).await? {
        return Err(absent(emulator, &asked.bucket).await?);
    }
    Ok(nothing())
}

/// An answer that says no more than that it is done.
pub(crate) fn nothing() -> Response<Body> {
    let mut answer = Response::new(whole(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// What the answer to a write says of it. Google's says no time.
fn written(object: &Resource, mut answer: Response<Body>) -> Result<Response<Body>> {
    let headers = answer.headers_mut();
    headers.insert(ETAG, value(&object.etag()?)?);
    headers.insert("x-goog-generation", value(&object.generation)?);
    headers.insert("x-goog-metageneration", HeaderValue::from_static("1"));
    Ok(answer)
}

async fn absent(emulator: &Emulator, bucket: &str) -> Result<Refusal> {
    Ok(if emulator.has_bucket(bucket).await? { Refusal::no_key() } else { Refusal::no_bucket() })
}

fn describe(object: &Resource) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, value(&object.etag()?)?);
    headers.insert(LAST_MODIFIED, value(&object.updated()?.format(DATE).to_string())?);
    headers.insert(CONTENT_TYPE, value(object.content_type())?);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("x-goog-generation", value(&object.generation)?);
    headers.insert("x-goog-metageneration", HeaderValue::from_static("1"));
    headers.insert("x-goog-stored-content-encoding", HeaderValue::from_static("identity"));
    headers.insert("x-goog-stored-content-length", object.size()?.into());
    for (field, text) in &object.metadata {
        let name = HeaderName::try_from(meta(field)).map_err(Refusal::emulator)?;
        headers.insert(name, value(text)?);
    }
    Ok(headers)
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(Refusal::emulator)
}

#[derive(PartialEq)]
enum Same {
    /// The client has it already.
    Yes,
    No,
}

/// The conditions on reads, in the order of RFC 9110, section 13.2.2.
fn conditions(asked: &Asked, object: &Resource) -> Result<Same> {
    let etag = object.etag()?;
    // Dates in HTTP have whole seconds.
    let updated = object.updated()?.timestamp();
    let named = |list: &str| list == "*" || list.split(',').any(|each| each.trim() == etag);
    let held = match (asked.header("if-match")?, date(asked, "if-unmodified-since")?) {
        (Some(list), _) => named(list),
        (None, Some(since)) => updated <= since.timestamp(),
        (None, None) => true,
    };
    if !held {
        return Err(Refusal::precondition());
    }
    let same = match (asked.header("if-none-match")?, date(asked, "if-modified-since")?) {
        (Some(list), _) => named(list),
        (None, Some(since)) => updated <= since.timestamp(),
        (None, None) => false,
    };
    Ok(if same { Same::Yes } else { Same::No })
}

fn date(asked: &Asked, header: &str) -> Result<Option<DateTime<Utc>>> {
    let Some(text) = asked.header(header)? else {
        return Ok(None);
    };
    let date = NaiveDateTime::parse_from_str(text, DATE);
    date.map(|date| Some(date.and_utc())).map_err(|_| Refusal::invalid(format!("{header} is no date of HTTP")))
}

/// The positions that a header `Range` names.
fn positions(header: &str, size: u64) -> Result<std::ops::Range<u64>> {
    let unknown = || Refusal::unknown(format_args!("the range {header}"));
    let number = |text: &str| text.parse::<u64>().map_err(|_| unknown());
    let (start, end) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')).ok_or_else(unknown)?;
    let range = match (start, end) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (start, "") => number(start)?..size,
        (start, last) if number(last)? < number(start)? => return Err(unknown()),
        (start, last) => number(start)?..size.min(number(last)?.saturating_add(1)),
    };
    if range.is_empty() {
        let message = "The requested range cannot be satisfied.";
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clamped_and_what_lies_beyond_is_refused() {
        for (header, size, expected) in [
            ("bytes=0-3", 10, Some(0..4)),
            ("bytes=8-99", 10, Some(8..10)),
            ("bytes=4-", 10, Some(4..10)),
            ("bytes=-3", 10, Some(7..10)),
            ("bytes=-30", 10, Some(0..10)),
            ("bytes=10-", 10, None),
            ("bytes=10-12", 10, None),
            ("bytes=-0", 10, None),
            ("bytes=-1", 0, None),
            ("bytes=0-1,4-5", 10, None),
            ("bytes=3-2", 10, None),
            ("lines=0-1", 10, None),
        ] {
            assert_eq!(positions(header, size).ok(), expected, "{header} of {size}");
        }
    }
}
