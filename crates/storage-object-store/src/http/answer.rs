//! Answers that are looked into before `object_store` sees them.
//!
//! S3 may begin an answer with 200 before it knows the outcome, and then say in the body that it failed. `object_store` takes each
//! body for such an answer that has `InternalError` or `SlowDown` anywhere in it, be it in a key.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::{Method, request};
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

/// Whether the answer says that the request failed.
pub(super) fn is_error(body: &[u8]) -> bool {
    let mut rest = body.trim_ascii_start();
    while let Some(declared) = rest.strip_prefix(b"<?") {
        let Some(end) = declared.windows(2).position(|two| two == b"?>") else { return false };
        rest = declared[end + 2..].trim_ascii_start();
    }
    let name = rest.strip_prefix(b"<Error").and_then(|rest| rest.first());
    name.is_some_and(|next| *next == b'>' || next.is_ascii_whitespace())
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
        let body = plain("<Key>SlowDown/InternalError</Key>".into());
        assert_eq!(body, "<Key>Slow&#68;own/Internal&#69;rror</Key>");
        for same in ["--batch\r\nSlowDown", "<Key>slowdown</Key>", "{\"SlowDown\": 1}"] {
            assert_eq!(plain(same.into()), same);
        }
    }
}
