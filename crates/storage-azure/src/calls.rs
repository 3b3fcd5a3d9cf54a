//! Signed requests for what `object_store` has no call for, or not as it is needed here: listings that foreign names do not break,
//! deletes of one blob, copies that are waited for.

use std::{
    fmt::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderName, Method, header::ETAG};
use async_trait::async_trait;
use object_store::{
    azure::{AzureAuthorizer, AzureCredential, MicrosoftAzure},
    client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse},
    path::Path,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use storage_core::{Error, ErrorKind, Result};
use storage_object_store::{CloudExtensions, Copied, ListRequest, Page, http};

use crate::{
    error::{self, AZURE},
    xml,
};

const QUERY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: AsciiSet = QUERY.remove(b'/');
/// The most blobs on a page of a listing.
const PAGE: usize = 5000;
const SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
/// The longest address that Azure copies from, in bytes.
const LONGEST: usize = 2048;
const STATUS: &str = "x-ms-copy-status";
/// How long to wait before asking for the first time whether a copy is done, and at most.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(2);

/// How many times `timeout` a copy may take, which is ten minutes by default.
const PATIENCE: u32 = 20;

/// A container.
pub(crate) struct Calls {
    pub(crate) store: Arc<MicrosoftAzure>,
    pub(crate) client: HttpClient,
    pub(crate) account: String,
    /// The address of the container, without a slash at its end.
    pub(crate) container: String,
    /// How long a request may take.
    pub(crate) timeout: Duration,
}

impl Calls {
    /// Finds out whether the container can be listed.
    pub(crate) async fn verify(&self) -> Result<()> {
        self.list(&ListRequest::default()).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        headers: &[(HeaderName, String)],
    ) -> Result<HttpResponse> {
        let mut address = self.address(name);
        for (i, (name, value)) in query.iter().enumerate() {
            let before = if i == 0 { '?' } else { '&' };
            // Writing to a string cannot fail.
            let _ = write!(address, "{before}{name}={}", utf8_percent_encode(value, &QUERY));
        }
        let mut request = ::http::Request::builder().method(method).uri(address).header("content-length", "0");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request: HttpRequest = request.body(HttpRequestBody::empty()).map_err(error::malformed_response)?;
        let credential = self.credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request).map_err(error::build)?;
        http::send(&self.client, request).await
    }

    async fn credential(&self) -> Result<Arc<AzureCredential>> {
        self.store.credentials().get_credential().await.map_err(error::no_credentials)
    }

    fn address(&self, name: &str) -> String {
        match name {
            "" => self.container.clone(),
            name => format!("{}/{}", self.container, utf8_percent_encode(name, &PATH)),
        }
    }

    /// The address of a blob to be read for a copy, which a shared access signature must allow by itself.
    async fn source(&self, name: &str) -> Result<String> {
        let mut address = self.address(name);
        if let AzureCredential::SASToken(pairs) = &*self.credential().await? {
            for (i, (name, value)) in pairs.iter().enumerate() {
                let before = if i == 0 { '?' } else { '&' };
                let _ = write!(address, "{before}{name}={}", utf8_percent_encode(value, &QUERY));
            }
        }
        Ok(address)
    }
}

impl fmt::Debug for Calls {
    /// The store is left out, since its own shows the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("container", &self.container).finish_non_exhaustive()
    }
}

#[async_trait]
impl CloudExtensions for Calls {
    async fn list(&self, ask: &ListRequest) -> Result<Page> {
        let limit = ask.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("restype", "container"), ("comp", "list"), ("maxresults", &limit)];
        if !ask.prefix.is_empty() {
            query.push(("prefix", &ask.prefix));
        }
        if ask.delimited {
            query.push(("delimiter", "/"));
        }
        match (&ask.next, &ask.after) {
            (Some(next), _) => query.push(("marker", next)),
            // Where this is not known, the listing begins earlier, which costs time alone.
            (None, Some(after)) => query.push(("startFrom", after)),
            (None, None) => {}
        }
        let answer = self.send(Method::GET, "", &query, &[]).await?;
        xml::page(&http::body(answer).await?)
    }

    async fn delete(&self, place: &Path, _: Option<&str>) -> Result<()> {
        match self.send(Method::DELETE, place.as_ref(), &[], &[]).await {
            Err(e) if e.kind() == ErrorKind::NotFound && http::Refusal::is(&e, "BlobNotFound") => Ok(()),
            done => done.map(drop),
        }
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<Option<Copied>> {
        let source = self.source(from.as_ref()).await?;
        if source.len() > LONGEST {
            return Err(Error::new(ErrorKind::TooLarge, "the address of the source is too long to be copied from"));
        }
        let source = [(SOURCE, source)];
        let mut answer = match self.send(Method::PUT, to.as_ref(), &[], &source).await {
            Err(e)
                if e.kind() == ErrorKind::NotFound && AZURE.absent.iter().any(|code| http::Refusal::is(&e, code)) =>
            {
                return Err(Error::new(ErrorKind::NotFound, "the source does not exist").with_source(e));
            }
            answer => answer?,
        };
        // Within an account a copy is mostly done by now, but Azure may do it later.
        let (mut wait, begun) = (SOON, Instant::now());
        loop {
            match answer.headers().get(STATUS).map(|status| status.as_bytes()) {
                Some(b"success") => {
                    let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
                    return Ok(Some(Copied { etag, version: None }));
                }
                Some(b"pending") => {}
                _ => {
                    let message = "the copy failed or was aborted; copy again";
                    return Err(Error::new(ErrorKind::Unavailable, message).ambiguous());
                }
            }
            if begun.elapsed() > self.timeout * PATIENCE {
                let message = "the copy is still under way; try again later, or raise `timeout`";
                return Err(Error::new(ErrorKind::Timeout, message).ambiguous());
            }
            tokio::time::sleep(wait).await;
            wait = LATER.min(wait * 2);
            answer = self.send(Method::HEAD, to.as_ref(), &[], &[]).await.map_err(Error::ambiguous)?;
        }
    }
}
