//! Requests that `object_store` has no call for: listings that foreign names do not break and that tell generations, the bucket itself.

use std::{fmt, fmt::Write, sync::Arc};

use ::http::{
    Method,
    header::{AUTHORIZATION, CONTENT_LENGTH, ETAG},
};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse},
    gcp::GoogleCloudStorage,
    path::Path,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use storage_core::{Error, ErrorKind, Result};
use storage_object_store::{CloudExtensions, Copied, ListRequest, Page, http};

use crate::{error, xml};

const QUERY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: AsciiSet = QUERY.remove(b'/');
/// The most objects on a page of a listing.
const PAGE: usize = 1000;

/// A bucket.
pub(crate) struct Calls {
    pub(crate) store: Arc<GoogleCloudStorage>,
    pub(crate) client: HttpClient,
    pub(crate) name: String,
    /// The address of the bucket, without a slash at its end.
    pub(crate) bucket: String,
}

impl Calls {
    /// Finds out whether there are credentials, and what begins so in the bucket can be listed, which is all that they may allow.
    pub(crate) async fn verify(&self, root: String) -> Result<()> {
        let mut ask = ListRequest::default();
        ask.prefix = root;
        self.list(&ask).await.map(drop)
    }

    async fn get(&self, query: &[(&str, &str)]) -> Result<Bytes> {
        http::body(self.send(Method::GET, "", query, None).await?).await
    }

    async fn send(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        source: Option<String>,
    ) -> Result<HttpResponse> {
        let mut address = self.bucket.clone();
        if !name.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(address, "/{}", utf8_percent_encode(name, &PATH));
        }
        for (i, (name, value)) in query.iter().enumerate() {
            let before = if i == 0 { '?' } else { '&' };
            let _ = write!(address, "{before}{name}={}", utf8_percent_encode(value, &QUERY));
        }
        let credential = self.store.credentials().get_credential().await.map_err(error::no_credentials)?;
        let request = ::http::Request::builder().method(method).uri(address);
        let mut request = request.header(AUTHORIZATION, format!("Bearer {}", credential.bearer));
        if let Some(source) = source {
            request = request.header("x-goog-copy-source", source).header(CONTENT_LENGTH, 0);
        }
        let request: HttpRequest = request.body(HttpRequestBody::empty()).map_err(error::malformed_response)?;
        http::send(&self.client, request).await
    }
}

impl fmt::Debug for Calls {
    /// The store is left out, since its own shows the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

#[async_trait]
impl CloudExtensions for Calls {
    async fn list(&self, ask: &ListRequest) -> Result<Page> {
        let limit = ask.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("encoding-type", "url"), ("list-type", "2"), ("max-keys", limit.as_str())];
        if !ask.prefix.is_empty() {
            query.push(("prefix", &ask.prefix));
        }
        if ask.delimited {
            query.push(("delimiter", "/"));
        }
        match (&ask.next, &ask.after) {
            (Some(next), _) => query.push(("continuation-token", next)),
            (None, Some(after)) => query.push(("start-after", after)),
            (None, None) => {}
        }
        xml::page(&self.get(&query).await?)
    }

    async fn delete(&self, place: &Path, version: Option<&str>) -> Result<()> {
        if version.is_some() {
            return Err(Error::unsupported("deleting a version"));
        }
        match self.send(Method::DELETE, place.as_ref(), &[], None).await {
            Err(e) if e.kind() == ErrorKind::NotFound && http::Refusal::is(&e, "NoSuchKey") => Ok(()),
            done => done.map(drop),
        }
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<Option<Copied>> {
        let source = format!("{}/{}", self.name, utf8_percent_encode(from.as_ref(), &PATH));
        match self.send(Method::PUT, to.as_ref(), &[], Some(source)).await {
            Err(e) if e.kind() == ErrorKind::NotFound && http::Refusal::is(&e, "NoSuchKey") => {
                Err(Error::new(ErrorKind::NotFound, "the source does not exist").with_source(e))
            }
            Err(e) => Err(e),
            Ok(answer) => {
                let said = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
                Ok(Some(Copied { etag: said(ETAG.as_str()), version: said("x-goog-generation") }))
            }
        }
    }
}
