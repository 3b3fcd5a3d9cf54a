//! The calls of the JSON interface.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use data_encoding::{BASE64, HEXLOWER};
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    refusal::{Body, Refusal, Result, whole},
    request::Attributes,
};

/// Stands between the parts of an upload. A value can hold it only by chance, one of 2 to the power of 128.
const LIMIT: usize = 16;

/// The emulator, by a pool of connections.
#[derive(Debug)]
pub(crate) struct Emulator {
    client: Client<HttpConnector, Body>,
    host: String,
}

/// An object without its value.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resource {
    pub(crate) name: String,
    size: String,
    pub(crate) generation: String,
    updated: String,
    md5_hash: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Resource {
    pub(crate) fn size(&self) -> Result<u64> {
        self.size.parse().map_err(|_| Refusal::emulator("the size of an object is no number"))
    }

    pub(crate) fn updated(&self) -> Result<DateTime<Utc>> {
        let updated = DateTime::parse_from_rfc3339(&self.updated);
        updated.map(|time| time.to_utc()).map_err(|_| Refusal::emulator("the time of an object is no time"))
    }

    /// The etag of the XML interface: a hash of the content, in quotes.
    pub(crate) fn etag(&self) -> Result<String> {
        let hash = self.md5_hash.as_ref().and_then(|hash| BASE64.decode(hash.as_bytes()).ok());
        let hash = hash.ok_or_else(|| Refusal::emulator("an object has no hash"))?;
        Ok(format!("\"{}\"", HEXLOWER.encode(&hash)))
    }

    pub(crate) fn content_type(&self) -> &str {
        self.content_type.as_deref().unwrap_or("application/octet-stream")
    }
}

/// A part of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Listing {
    pub(crate) items: Vec<Resource>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) next_page_token: Option<String>,
}

impl Emulator {
    pub(crate) fn new(host: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), host: host.to_owned() }
    }

    /// An object; `None` where there is none.
    pub(crate) async fn object(&self, bucket: &str, name: &str, generation: Option<&str>) -> Result<Option<Resource>> {
        let query: Vec<_> = generation.map(|generation| ("generation", generation)).into_iter().collect();
        self.ask(Method::GET, &object(bucket, name), &query, None).await
    }

    /// The value of an object, or the positions of it that a header `Range` names; `None` where there is no such generation.
    pub(crate) async fn value(
        &self,
        bucket: &str,
        name: &str,
        generation: &str,
        range: Option<&str>,
    ) -> Result<Option<Response<Incoming>>> {
        let query = [("alt", "media"), ("generation", generation)];
        let mut request = self.request(Method::GET, &object(bucket, name), &query);
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let answer = self.send(request.body(whole(""))).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(Some(answer)),
            status => Err(Refusal::emulator(format_args!("{status} for a value"))),
        }
    }

    /// Writes an object, on the condition that its generation is this one, or that there is none if it is `0`.
    pub(crate) async fn insert(
        &self,
        bucket: &str,
        name: &str,
        attributes: &Attributes,
        value: Body,
        generation: Option<&str>,
    ) -> Result<Resource> {
        let about = json!({ "name": name, "contentType": attributes.content_type, "metadata": attributes.metadata });
        let limit: String = std::iter::repeat_with(|| format!("{:02x}", fastrand::u8(..))).take(LIMIT).collect();
        let start = format!(
            "--{limit}\r\ncontent-type: application/json; charset=UTF-8\r\n\r\n{about}\r\n--{limit}\r\ncontent-type: {}\r\n\r\n",
            attributes.content_type
        );
        let frame = |text: String| stream::iter([Ok(Frame::data(Bytes::from(text)))]);
        let frames = frame(start).chain(BodyStream::new(value)).chain(frame(format!("\r\n--{limit}--\r\n")));
        let mut query = vec![("uploadType", "multipart")];
        query.extend(generation.map(|generation| ("ifGenerationMatch", generation)));
        let request = self.request(Method::POST, &format!("/upload/storage/v1/b/{}/o", encode(bucket)), &query);
        let request = request.header(header::CONTENT_TYPE, format!("multipart/related; boundary={limit}"));
        let answer = self.send(request.body(StreamBody::new(frames).boxed_unsync())).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Err(Refusal::no_bucket()),
            StatusCode::PRECONDITION_FAILED => Err(Refusal::precondition()),
            _ => read(answer).await,
        }
    }

    /// Deletes an object; says whether there was one.
    pub(crate) async fn delete(&self, bucket: &str, name: &str) -> Result<bool> {
        let request = self.request(Method::DELETE, &object(bucket, name), &[]);
        let answer = self.send(request.body(whole(""))).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(Refusal::emulator(format_args!("{status} for a delete"))),
        }
    }

    /// A part of a listing; `None` where there is no bucket.
    pub(crate) async fn list(&self, bucket: &str, query: &[(&str, &str)]) -> Result<Option<Listing>> {
        self.ask(Method::GET, &format!("{}/o", self::bucket(bucket)), query, None).await
    }

    /// Copies an object, with its attributes if none are given; `None` where there is none.
    pub(crate) async fn rewrite(
        &self,
        from: (&str, &str),
        to: (&str, &str),
        attributes: Option<&Attributes>,
    ) -> Result<Option<Resource>> {
        #[derive(Deserialize)]
        struct Rewritten {
            done: bool,
            resource: Resource,
        }
        let about = attributes.map(|it| json!({ "contentType": it.content_type, "metadata": it.metadata }));
        let to = object(to.0, to.1).replacen("/storage/v1", "", 1);
        let path = format!("{}/rewriteTo{to}", object(from.0, from.1));
        let rewritten: Option<Rewritten> = self.ask(Method::POST, &path, &[], about).await?;
        match rewritten {
            Some(Rewritten { done: false, .. }) => Err(Refusal::unknown("copies in several steps")),
            rewritten => Ok(rewritten.map(|rewritten| rewritten.resource)),
        }
    }

    /// Makes one object of at most 32, in the same bucket.
    pub(crate) async fn compose(&self, bucket: &str, from: &[String], to: &str) -> Result<Resource> {
        let sources: Vec<_> = from.iter().map(|name| json!({ "name": name })).collect();
        let about = json!({ "sourceObjects": sources, "destination": { "contentType": "application/octet-stream" } });
        let composed = self.ask(Method::POST, &format!("{}/compose", object(bucket, to)), &[], Some(about)).await?;
        composed.ok_or_else(Refusal::no_upload)
    }

    pub(crate) async fn has_bucket(&self, bucket: &str) -> Result<bool> {
        let found: Option<serde_json::Value> = self.ask(Method::GET, &self::bucket(bucket), &[], None).await?;
        Ok(found.is_some())
    }

    /// Makes a bucket, unless it is there.
    pub(crate) async fn make_bucket(&self, bucket: &str) -> Result<()> {
        let request = self.request(Method::POST, "/storage/v1/b", &[]);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(whole(json!({ "name": bucket }).to_string()))).await?;
        match answer.status() {
            status if status.is_success() || status == StatusCode::CONFLICT => Ok(()),
            status => Err(Refusal::emulator(format_args!("{status} for a new bucket"))),
        }
    }

    /// A request and its answer as JSON; `None` for 404.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<serde_json::Value>,
    ) -> Result<Option<T>> {
        let request = self.request(method, path, query).header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(whole(body.map_or_else(String::new, |body| body.to_string())))).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => read(answer).await.map(Some),
        }
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> http::request::Builder {
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let uri = format!("http://{}{path}?{}", self.host, query.join("&"));
        Request::builder().method(method).uri(uri)
    }

    async fn send(&self, request: http::Result<Request<Body>>) -> Result<Response<Incoming>> {
        let request = request.map_err(|e| Refusal::invalid(e.to_string()))?;
        self.client.request(request).await.map_err(Refusal::emulator)
    }
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T> {
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(Refusal::emulator)?.to_bytes();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(Refusal::emulator(format_args!("{status}: {text}")));
    }
    serde_json::from_slice(&body).map_err(Refusal::emulator)
}

fn bucket(bucket: &str) -> String {
    format!("/storage/v1/b/{}", encode(bucket))
}

fn object(bucket: &str, name: &str) -> String {
    format!("{}/o/{}", self::bucket(bucket), encode(name))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
