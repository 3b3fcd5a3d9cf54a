//! What becomes of an answer before `object_store` sees it.

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, LAST_MODIFIED},
    request, response,
};
use object_store::client::{HttpError, HttpErrorKind, HttpResponse, HttpResponseBody};

use super::{
    Connector, ENOUGH, Refusal, ResponseHints, answer, said,
    service::{Located, Verdict, is_encoded},
};

/// The most bytes of an answer without a length that are counted by reading them.
const COUNTED: usize = 1 << 20;
/// Stands for a time that is not known, since `object_store` wants one in each answer.
const NO_TIME: HeaderValue = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");

impl Connector {
    /// What `object_store` is to see of an answer with a good status.
    pub(super) async fn success(
        &self,
        located: Option<&Located>,
        asked: &request::Parts,
        mut parts: response::Parts,
        body: HttpResponseBody,
    ) -> Result<HttpResponse, HttpError> {
        parts.extensions.insert(said(&parts.headers));
        let reads = asked.method == Method::GET || asked.method == Method::HEAD;
        let verdict = located.map_or(Verdict::Own, |located| located.success(asked, &parts));
        let by_another = |refusal: Refusal| match (verdict, located) {
            (Verdict::Unsaid, _) | (_, None) => Err(refused(refusal.left_open())),
            (_, Some(located)) => Err(refused(refusal.by_another(located.service.name))),
        };
        if reads {
            return match located {
                _ if verdict != Verdict::Own => by_another(Refusal::new(parts.status.as_u16(), &parts.headers, &[])),
                Some(located) if located.is_object(asked) => self.described(asked, parts, body).await,
                _ => Ok(HttpResponse::from_parts(parts, body)),
            };
        }
        if !answer::is_late(asked) && located.is_none() {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let body = answer::whole(body, self.transport.timeout()).await?;
        let mut refusal = Refusal::new(parts.status.as_u16(), &parts.headers, &body);
        if answer::is_error(&body) {
            refusal.explained_by(self.explain);
            return Err(refused(refusal));
        }
        let answers = located.is_none_or(|located| located.is_answer(asked, &parts, &body));
        match verdict == Verdict::Own && answers {
            true => Ok(HttpResponse::from_parts(parts, answer::plain(body).into())),
            false => by_another(refusal),
        }
    }

    /// The answer to a request that reads, with the headers that `object_store` wants, as far as they follow from others.
    async fn described(
        &self,
        asked: &request::Parts,
        mut parts: response::Parts,
        body: HttpResponseBody,
    ) -> Result<HttpResponse, HttpError> {
        let modified = parts.extensions.get::<ResponseHints>().and_then(|said| said.modified);
        let modified = modified.map(|time| time.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let modified = modified.and_then(|time| HeaderValue::try_from(time).ok()).unwrap_or(NO_TIME);
        parts.headers.insert(LAST_MODIFIED, modified);
        legible(&mut parts.headers);
        let left_open = |parts: &response::Parts| {
            Err(refused(Refusal::new(parts.status.as_u16(), &parts.headers, &[]).left_open()))
        };
        let gets = asked.method == Method::GET;
        if gets && is_encoded(&parts.headers) {
            return left_open(&parts);
        }
        if parts.headers.contains_key(CONTENT_LENGTH) {
            return Ok(HttpResponse::from_parts(parts, body));
        }
        if parts.status == StatusCode::PARTIAL_CONTENT {
            if let Some(length) = parts.headers.get(CONTENT_RANGE).and_then(answer::positions) {
                parts.headers.insert(CONTENT_LENGTH, length.into());
            }
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let start = answer::start(body, COUNTED).await?;
        if !gets || start.len() == COUNTED {
            return left_open(&parts);
        }
        parts.headers.insert(CONTENT_LENGTH, start.len().into());
        Ok(HttpResponse::from_parts(parts, start.into()))
    }

    /// What it is to see of any other.
    pub(super) async fn refused(
        &self,
        located: Option<&Located>,
        asked: &request::Parts,
        parts: response::Parts,
        body: HttpResponseBody,
    ) -> Result<HttpResponse, HttpError> {
        let body = answer::start(body, ENOUGH).await?;
        let mut refusal = Refusal::new(parts.status.as_u16(), &parts.headers, &body);
        if let Some(located) = located {
            match located.refusal(asked, &parts, &body) {
                Verdict::Own => {}
                Verdict::Foreign => return Err(refused(refusal.by_another(located.service.name))),
                Verdict::Unsaid => return Err(refused(refusal.left_open())),
            }
        }
        let known = refusal.explained_by(self.explain);
        let absent = |located: &Located| refusal.code.is_empty() || located.service.absent.contains(&&*refusal.code);
        // What these mean depends on what was asked, which object_store knows.
        let asks = match parts.status.as_u16() {
            404 => located.is_none_or(absent),
            304 | 409 | 412 => true,
            _ => false,
        };
        if !known && asks {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        Err(refused(refusal))
    }
}

fn refused(refusal: Refusal) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, refusal)
}

/// Leaves out what others have stored in headers and is no text to `object_store`, which would not give out the value for it. What
/// ought to be ours stays, as a text that is none of ours.
fn legible(headers: &mut HeaderMap) {
    let illegible: Vec<_> =
        headers.iter().filter(|(_, value)| value.to_str().is_err()).map(|(name, _)| name.clone()).collect();
    for name in illegible {
        match name.as_str().ends_with("-meta-storage") {
            true => drop(headers.insert(name, HeaderValue::from_static("?"))),
            false => drop(headers.remove(name)),
        }
    }
}
