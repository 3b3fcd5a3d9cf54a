//! Uploads by parts. They lie in a bucket of their own until they are put together.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, ETAG},
};
use http_body_util::{BodyExt, Limited};
use quick_xml::escape::escape;
use serde::{Deserialize, Serialize};

use crate::{
    emulator::{Emulator, Resource},
    objects::nothing,
    refusal::{Body, Refusal, Result, whole, xml},
    request::{Asked, Attributes},
};

/// Where uploads lie.
const BUCKET: &str = "storage-gcs-xml-uploads";
/// How many objects the emulator puts together at once, and Google too.
const AT_ONCE: usize = 32;
/// The fewest bytes of a part that is not the last.
const SMALLEST: u64 = 5 << 20;
/// The most parts.
const MOST: u32 = 10_000;
/// The most bytes of a list of parts.
const LIST: usize = 4 << 20;

/// What an upload is to become.
#[derive(Serialize, Deserialize)]
struct Upload {
    bucket: String,
    name: String,
    attributes: Attributes,
}

/// `POST` with `uploads`.
pub(crate) async fn begin(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    let attributes = asked.attributes(&[])?;
    if !emulator.has_bucket(&asked.bucket).await? {
        return Err(Refusal::no_bucket());
    }
    emulator.make_bucket(BUCKET).await?;
    let upload = Upload { bucket: asked.bucket.clone(), name: asked.name.clone(), attributes };
    let text = serde_json::to_string(&upload).map_err(Refusal::emulator)?;
    let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    emulator.insert(BUCKET, &about(&id), &Attributes::default(), whole(text), Some("0")).await?;
    let (bucket, name) = (escape(&asked.bucket), escape(&asked.name));
    Ok(xml(&format!(
        "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{name}</Key><UploadId>{id}</UploadId>\
         </InitiateMultipartUploadResult>"
    )))
}

/// `PUT` with `partNumber` and `uploadId`.
pub(crate) async fn part(emulator: &Emulator, asked: &Asked, body: Body) -> Result<Response<Body>> {
    asked.only_headers(&["content-type"])?;
    let number = asked.parameter("partNumber").and_then(|number| number.parse().ok());
    let number = number.filter(|number| (1..=MOST).contains(number));
    let number = number.ok_or_else(|| Refusal::invalid("partNumber is no number from 1 to 10000"))?;
    let (id, _) = find(emulator, asked).await?;
    let name = place(&id, number);
    let part = emulator.insert(BUCKET, &name, &Attributes::default(), body, None).await?;
    // Whoever has ended the upload meanwhile may not have seen this.
    if let Err(ended) = find(emulator, asked).await {
        emulator.delete(BUCKET, &name).await?;
        return Err(ended);
    }
    let mut answer = Response::new(whole(""));
    let etag = HeaderValue::from_str(&part.etag()?).map_err(Refusal::emulator)?;
    answer.headers_mut().insert(ETAG, etag);
    answer.headers_mut().insert(CONTENT_LENGTH, 0.into());
    Ok(answer)
}

/// `POST` with `uploadId`.
pub(crate) async fn complete(emulator: &Emulator, asked: &Asked, body: Body) -> Result<Response<Body>> {
    asked.only_headers(&["content-type"])?;
    let (id, upload) = find(emulator, asked).await?;
    let list = Limited::new(body, LIST).collect().await.map_err(|e| Refusal::invalid(e.to_string()))?.to_bytes();
    let sources = chosen(&list, &parts(emulator, &id).await?)?;
    let name = together(emulator, &id, sources).await?;
    let target = (upload.bucket.as_str(), upload.name.as_str());
    let object = emulator.rewrite((BUCKET, &name), target, Some(&upload.attributes)).await?;
    let object = object.ok_or_else(Refusal::no_upload)?;
    end(emulator, &id).await?;
    let (bucket, name, etag) = (escape(target.0), escape(target.1), object.etag()?);
    // The reference names no header with the generation in this answer.
    Ok(xml(&format!(
        "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{name}</Key><ETag>{}</ETag>\
         </CompleteMultipartUploadResult>",
        escape(&etag)
    )))
}

/// `DELETE` with `uploadId`.
pub(crate) async fn abort(emulator: &Emulator, asked: &Asked) -> Result<Response<Body>> {
    asked.only_headers(&["content-type"])?;
    let (id, _) = find(emulator, asked).await?;
    end(emulator, &id).await?;
    Ok(nothing())
}

/// The upload that is meant.
async fn find(emulator: &Emulator, asked: &Asked) -> Result<(String, Upload)> {
    let id = asked.parameter("uploadId").unwrap_or_default();
    let own = id.len() == 32 && id.bytes().all(|c| c.is_ascii_hexdigit());
    let name = about(id);
    let object = if own { emulator.object(BUCKET, &name, None).await? } else { None };
    let object = object.ok_or_else(Refusal::no_upload)?;
    let text = emulator.value(BUCKET, &name, &object.generation, None).await?.ok_or_else(Refusal::no_upload)?;
    let text = text.into_body().collect().await.map_err(Refusal::emulator)?.to_bytes();
    let upload: Upload = serde_json::from_slice(&text).map_err(Refusal::emulator)?;
    match upload.bucket == asked.bucket && upload.name == asked.name {
        true => Ok((id.to_owned(), upload)),
        false => Err(Refusal::no_upload()),
    }
}

/// What has been sent, in order.
async fn parts(emulator: &Emulator, id: &str) -> Result<Vec<Resource>> {
    let (prefix, mut parts, mut token) = (format!("{id}/part-"), Vec::new(), None::<String>);
    loop {
        let mut query = vec![("prefix", prefix.as_str())];
        query.extend(token.as_deref().map(|token| ("pageToken", token)));
        let listing = emulator.list(BUCKET, &query).await?.ok_or_else(Refusal::no_upload)?;
        parts.extend(listing.items);
        token = listing.next_page_token.filter(|token| !token.is_empty());
        if token.is_none() {
            parts.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(parts);
        }
    }
}

/// The names of the parts that a list names.
fn chosen(list: &[u8], parts: &[Resource]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct List {
        #[serde(default)]
        part: Vec<Named>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Named {
        part_number: u32,
        #[serde(rename = "ETag")]
        etag: String,
    }
    let wrong = |code, message: &str| Refusal::new(StatusCode::BAD_REQUEST, code, message);
    let list: List = quick_xml::de::from_reader(list)
        .map_err(|e| wrong("MalformedCompleteMultipartUploadRequest", &e.to_string()))?;
    let ordered = list.part.is_sorted_by(|a, b| a.part_number < b.part_number);
    if list.part.is_empty() || !ordered {
        return Err(wrong("InvalidPartOrder", "The list of parts was not in ascending order, or empty."));
    }
    let mut names = Vec::with_capacity(list.part.len());
    for (at, named) in list.part.iter().enumerate() {
        let found = parts.iter().find(|part| part.name.ends_with(&number(named.part_number)));
        let found = found.filter(|part| part.etag().is_ok_and(|etag| etag == named.etag));
        let found =
            found.ok_or_else(|| wrong("InvalidPart", "One of the parts could not be found, or has another etag."))?;
        if found.size()? < SMALLEST && at + 1 < list.part.len() {
            return Err(wrong("EntityTooSmall", "A part that is not the last has fewer than 5 MiB."));
        }
        names.push(found.name.clone());
    }
    Ok(names)
}

/// Puts parts together, in as many rounds as it takes; the name of what they have become.
async fn together(emulator: &Emulator, id: &str, mut names: Vec<String>) -> Result<String> {
    let mut round = 0;
    while names.len() > 1 {
        let mut composed = Vec::with_capacity(names.len().div_ceil(AT_ONCE));
        for (at, some) in names.chunks(AT_ONCE).enumerate() {
            let name = format!("{id}/round-{round}-{at:05}");
            emulator.compose(BUCKET, some, &name).await?;
            composed.push(name);
        }
        names = composed;
        round += 1;
    }
    names.pop().ok_or_else(Refusal::no_upload)
}

/// Deletes all of an upload, first what makes it one.
async fn end(emulator: &Emulator, id: &str) -> Result<()> {
    emulator.delete(BUCKET, &about(id)).await?;
    let prefix = format!("{id}/");
    loop {
        let listing = emulator.list(BUCKET, &[("prefix", &prefix)]).await?.unwrap_or_default();
        if listing.items.is_empty() {
            return Ok(());
        }
        for object in listing.items {
            emulator.delete(BUCKET, &object.name).await?;
        }
    }
}

fn about(id: &str) -> String {
    format!("{id}/upload")
}

fn place(id: &str, part: u32) -> String {
    format!("{id}{}", number(part))
}

fn number(part: u32) -> String {
    format!("/part-{part:05}")
}
