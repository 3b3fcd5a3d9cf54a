//! Signed requests for what `object_store` has no call for: listings that foreign names do not break, versions, the bucket itself.

use std::{fmt::Write, sync::Arc, time::Duration};

use ::http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE};
use async_trait::async_trait;
use bytes::Bytes;
use object_store::{
    aws::{AmazonS3, AwsAuthorizer},
    client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse},
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use storage_core::{Error, ErrorKind, PresignMethod, PresignOptions, PresignedRequest, Result};
use storage_object_store::{CloudExtensions, Copied, ListRequest, Page, http};

use crate::{error, xml};

/// What AWS leaves as it is in a query (Signature Version 4, `UriEncode`); in a path also the slash.
const QUERY: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: AsciiSet = QUERY.remove(b'/');
const SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const VERSION: &str = "x-amz-version-id";
/// The shortest and the longest lifetime of a presigned request.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A bucket.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) store: Arc<AmazonS3>,
    pub(crate) client: HttpClient,
    pub(crate) name: String,
    /// The address of the bucket, without a slash at its end.
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) anonymous: bool,
    pub(crate) versioned: bool,
    /// The headers that ask for the configured encryption.
    pub(crate) encryption: Vec<(HeaderName, String)>,
}

impl Calls {
    /// Finds out whether there are credentials, and what begins so in the bucket can be listed, which is all that they may allow.
    pub(crate) async fn verify(&self, root: &str) -> Result<()> {
        if !self.anonymous {
            self.store.credentials().get_credential().await.map_err(error::no_credentials)?;
        }
        let mut query = vec![("list-type", "2"), ("max-keys", "1")];
        if !root.is_empty() {
            query.push(("prefix", root));
        }
        xml::page(&self.get(&query).await?, xml::OBJECTS).map(drop)
    }

    /// Whether every write makes a version.
    pub(crate) async fn is_versioned(&self) -> Result<bool> {
        match self.get(&[("versioning", "")]).await {
            Ok(body) => xml::versioned(&body),
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                tracing::warn!(error = %e, "cannot read the bucket's versioning status; versioning disabled");
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    async fn get(&self, query: &[(&str, &str)]) -> Result<Bytes> {
        http::body(self.send(Method::GET, "", query, &[]).await?).await
    }

    async fn send(
        &self,
        method: Method,
        name: &str,
        query: &[(&str, &str)],
        headers: &[(HeaderName, String)],
    ) -> Result<HttpResponse> {
        let mut address = format!("{}/{}", self.bucket, utf8_percent_encode(name, &PATH));
        for (i, (name, value)) in query.iter().enumerate() {
            let before = if i == 0 { '?' } else { '&' };
            // Writing to a string cannot fail.
            let _ = write!(address, "{before}{name}={}", utf8_percent_encode(value, &QUERY));
        }
        let mut request = ::http::Request::builder().method(method).uri(address);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request: HttpRequest = request.body(HttpRequestBody::empty()).map_err(error::malformed_response)?;
        if !self.anonymous {
            let credential = self.store.credentials().get_credential().await.map_err(error::no_credentials)?;
            let signed = AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None);
            signed.map_err(error::build)?;
        }
        http::send(&self.client, request).await
    }
}

#[async_trait]
impl CloudExtensions for Calls {
    async fn list(&self, ask: &ListRequest) -> Result<Page> {
        let limit = ask.limit.min(1000).to_string();
        let mut query =
            vec![("encoding-type", "url"), ("list-type", "2"), ("max-keys", &limit), ("prefix", &ask.prefix)];
        if ask.delimited {
            query.push(("delimiter", "/"));
        }
        match (&ask.next, &ask.after) {
            (Some(next), _) => query.push(("continuation-token", next)),
            (None, Some(after)) => query.push(("start-after", after)),
            (None, None) => {}
        }
        xml::page(&self.get(&query).await?, xml::OBJECTS)
    }

    fn versioned(&self) -> bool {
        self.versioned
    }

    async fn versions(&self, ask: &ListRequest) -> Result<Page> {
        let limit = ask.limit.min(1000).to_string();
        let mut query = vec![("versions", ""), ("encoding-type", "url"), ("max-keys", &limit), ("prefix", &ask.prefix)];
        if let Some(next) = &ask.next {
            let (key, version) = xml::markers(next);
            query.push(("key-marker", key));
            if !version.is_empty() {
                query.push(("version-id-marker", version));
            }
        }
        xml::page(&self.get(&query).await?, xml::VERSIONS)
    }

    async fn delete(&self, place: &Path, version: Option<&str>) -> Result<()> {
        let version = version.map(|version| [("versionId", version)]);
        let query = version.as_ref().map_or(&[][..], |query| query);
        match self.send(Method::DELETE, place.as_ref(), query, &[]).await {
            // The bucket was there when this connected; what is missing is the version.
            Err(e) if e.kind() == ErrorKind::NotFound && version.is_some() => Ok(()),
            // Amazon says nothing of the kind, and others do.
            Err(e) if e.kind() == ErrorKind::NotFound && http::Refusal::is(&e, "NoSuchKey") => Ok(()),
            done => done.map(drop),
        }
    }

    async fn copy(&self, from: &Path, to: &Path) -> Result<Option<Copied>> {
        let source = format!("{}/{}", self.name, utf8_percent_encode(from.as_ref(), &PATH));
        let mut headers = self.encryption.clone();
        headers.push((SOURCE, source));
        let answer = match self.send(Method::PUT, to.as_ref(), &[], &headers).await {
            Err(e) if e.kind() == ErrorKind::NotFound && http::Refusal::is(&e, "NoSuchKey") => {
                return Err(Error::new(ErrorKind::NotFound, "the source does not exist").with_source(e));
            }
            answer => answer?,
        };
        let version = answer.headers().get(VERSION).and_then(|version| version.to_str().ok()).map(str::to_owned);
        let etag = xml::copied(&http::body(answer).await.map_err(Error::ambiguous)?).map_err(Error::ambiguous)?;
        Ok(Some(Copied { etag, version }))
    }

    fn presigns(&self) -> bool {
        !self.anonymous
    }

    async fn presign(&self, place: &Path, options: &PresignOptions) -> Result<PresignedRequest> {
        if options.expires_in < SHORTEST || options.expires_in > LONGEST {
            let message = "S3 presigns requests for at least one second and at most seven days";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if options.content_length.is_some() {
            // The signer leaves this header out of what it signs.
            return Err(Error::unsupported("presigned requests that bind the content length"));
        }
        // The store counts in whole seconds.
        let expires_in = Duration::from_secs(options.expires_in.as_secs());
        let mut headers = Vec::new();
        let method = match options.method {
            PresignMethod::Get => Method::GET,
            PresignMethod::Head => Method::HEAD,
            PresignMethod::Delete => Method::DELETE,
            PresignMethod::Put => {
                // Otherwise the value would lie there unencrypted, or under another key than configured.
                headers.extend(self.encryption.iter().cloned());
                headers.extend(options.content_type.iter().map(|text| (CONTENT_TYPE, text.clone())));
                Method::PUT
            }
            other => return Err(Error::unsupported(&format!("presigned {other} requests"))),
        };
        let mut bound = SignedUrlOptions::default();
        for (name, value) in &headers {
            bound = bound
                .with_signed_header(name.clone(), HeaderValue::from_str(value).map_err(error::malformed_response)?);
        }
        let url = self.store.signed_url_opts(method, place, expires_in, &bound).await.map_err(error::no_credentials)?;
        let request = PresignedRequest::new(options.method, url, expires_in);
        Ok(headers.into_iter().fold(request, |request, (name, value)| request.header(name.as_str(), value)))
    }
}
