//! Answers that are looked into before `object_store` sees them.
//!
//! S3 may begin an answer with 200 before it knows the outcome, and then say in the body that it failed. `object_store` takes each
//! body for such an answer that has `InternalError` or `SlowDown` anywhere in it, be it in a key.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::{HeaderValue, Method, request};
use object_store::client::{HttpError, HttpErrorKind, HttpResponseBody};

/// The most that an answer can hold which is read whole: a batch of 1,000 keys of 1,024 bytes, each of which may be written by six.
const MOST: usize = 16 << 20;
/// The texts that `object_store` looks for, and the same as XML reads them.
const SAME: [(&str, &str); 2] = [("InternalError", "Internal&#69;rror"), ("SlowDown", "Slow&#68;own")];

/// Whether the answer to this request may be such a one.
pub(super) fn is_late(request: &request::Parts) -> bool {
    request.method == Method::POST || request.headers.contains_key("x-amz-copy-source")
}

/// A whole body, each piece of which may take so long.
pub(super) async fn whole(body: HttpResponseBody, timeout: Duration) -> Result<Bytes, HttpError> {
    let (mut whole, mut pieces) = (BytesMut::new(), body.bytes_stream());
    while let Some(piece) = in_time(timeout, pieces.try_next()).await? {
        if whole.len() + piece.len() > MOST {
            return Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other("the answer has no end")));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// What takes no longer than that.
pub(super) async fn in_time<T>(
    limit: Duration,
    doing: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let done = tokio::time::timeout(limit, doing).await;
    done.unwrap_or_else(|late| Err(HttpError::new(HttpErrorKind::Timeout, late)))
}

/// The first bytes of a body, at most so many.
pub(super) async fn start(body: HttpResponseBody, enough: usize) -> Result<Bytes, HttpError> {
    let (mut start, mut pieces) = (BytesMut::new(), body.bytes_stream());
    while let Some(piece) = pieces.try_next().await? {
        start.extend_from_slice(&piece[..piece.len().min(enough - start.len())]);
        if start.len() == enough {
            break;
        }
    }
    Ok(start.freeze())
}

/// How many bytes a header `Content-Range` stands for.
pub(super) fn positions(range: &HeaderValue) -> Option<u64> {
    let (range, _) = range.to_str().ok()?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last): (u64, u64) = (start.trim().parse().ok()?, last.trim().parse().ok()?);
    last.checked_sub(start)?.checked_add(1)
}

/// Whether the answer says that the request failed.
pub(super) fn is_error(body: &[u8]) -> bool {
    root(body) == Some("Error")
}

/// The name of the element that XML or HTML begins with, without a prefix of a namespace; `None` for anything else.
pub(super) fn root(body: &[u8]) -> Option<&str> {
    let mut rest = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    // Comments before declarations, whose start is theirs as well.
    let asides = [("<?", "?>"), ("<!--", "-->"), ("<!", ">")];
    while let Some((within, end)) =
        asides.iter().find_map(|(start, end)| Some((rest.strip_prefix(start.as_bytes())?, end.as_bytes())))
    {
        let behind = within.windows(end.len()).position(|text| text == end)? + end.len();
        rest = within[behind..].trim_ascii_start();
    }
    let rest = rest.strip_prefix(b"<")?;
    let end = rest.iter().position(|c| c.is_ascii_whitespace() || matches!(c, b'>' | b'/'))?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let name = name.split_once(':').map_or(name, |(_, name)| name);
    (!name.is_empty()).then_some(name)
}

/// The same answer without what `object_store` would take for an error.
pub(super) fn plain(body: Bytes) -> Bytes {
    let is_xml = body.trim_ascii_start().first() == Some(&b'<');
    let Some(text) = std::str::from_utf8(&body).ok().filter(|_| is_xml) else { return body };
    if !SAME.iter().any(|(misread, _)| text.contains(misread)) {
        return body;
    }
    let plain = SAME.iter().fold(text.to_owned(), |text, (misread, same)| text.replace(misread, same));
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_key_that_is_called_so() {
        for error in ["<Error><Code>SlowDown</Code></Error>", " \n<?xml version=\"1.0\"?>\n  <Error a=\"b\">"] {
            assert!(is_error(error.as_bytes()), "{error}");
        }
        for none in ["", "{}", "<DeleteResult><Error>", "<Errors>", "<?xml", "<CopyObjectResult/>", "<Error"] {
            assert!(!is_error(none.as_bytes()), "{none}");
        }
        for (body, name) in [
            ("\u{feff}<?xml version=\"1.0\"?><!-- <x> --><a:EnumerationResults x=\"y\">", Some("EnumerationResults")),
            ("<!DOCTYPE html><!-- hi --><html lang=\"en\"><head>", Some("html")),
            ("<ListBucketResult/>", Some("ListBucketResult")),
            ("<", None),
            ("<?xml", None),
            ("<!", None),
            ("hello <html>", None),
            ("{\"a\": 1}", None),
        ] {
            assert_eq!(root(body.as_bytes()), name, "{body}");
        }
        let body = plain("<Key>SlowDown/InternalError</Key>".into());
        assert_eq!(body, "<Key>Slow&#68;own/Internal&#69;rror</Key>");
        for same in ["--batch\r\nSlowDown", "<Key>slowdown</Key>", "{\"SlowDown\": 1}"] {
            assert_eq!(plain(same.into()), same);
        }
    }
}
