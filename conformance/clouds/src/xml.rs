//! The protocol of S3, and the XML interface of Google, which is much the same.

use std::fmt::Write;

use crate::{Answer, Asked, Cloud, Object, Store, server::decode};

/// When everything was written.
pub(crate) const TIME: &str = "Fri, 02 Jan 2026 03:04:05 GMT";
const LISTED: &str = "2026-01-02T03:04:05.000Z";

pub(crate) fn serve(cloud: Cloud, store: &mut Store, asked: &Asked) -> Answer {
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    let copied = header("x-amz-copy-source").or(header("x-goog-copy-source"));
    let upload = asked.query.get("uploadId").map(String::as_str);
    match (asked.method.as_str(), asked.name.as_str()) {
        ("GET", "") if asked.has("versioning") => {
            let status = if store.versioned { "<Status>Enabled</Status>" } else { "" };
            Answer::xml(200, &format!("<VersioningConfiguration>{status}</VersioningConfiguration>"))
        }
        ("GET", "") => list(store, asked),
        ("POST", "") if asked.has("delete") => {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            let mut text = String::new();
            for name in body.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()) {
                store.objects.remove(name);
                // Writing to a string cannot fail.
                let _ = write!(text, "<Deleted><Key>{name}</Key></Deleted>");
            }
            Answer::xml(200, &format!("<DeleteResult>{text}</DeleteResult>"))
        }
        ("GET" | "HEAD", name) => match store.objects.get(name) {
            Some(object) => read(cloud, object, asked),
            None => cloud.absent(),
        },
        ("PUT", name) if copied.is_some() => {
            let source = decode(copied.unwrap_or_default());
            let source = source.trim_start_matches('/').split_once('/').map_or("", |(_, name)| name);
            let Some(object) = store.objects.get(source).cloned() else { return cloud.absent() };
            let object = store.put(name, &object.body, object.headers);
            Answer::xml(200, &format!("<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>", object.etag()))
        }
        ("PUT", _) if let Some(id) = upload => {
            let number = asked.query.get("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
            let Some((_, parts)) = store.uploads.get_mut(id) else { return cloud.refusal(404, "NoSuchUpload") };
            parts.insert(number, asked.body.clone());
            Answer::new(200, "").header("etag", format!("\"part-{number}\""))
        }
        ("PUT", name) => {
            let now = store.objects.get(name);
            let etag = now.map(Object::etag);
            let generation = now.map_or("0".to_owned(), |now| now.generation.to_string());
            let bad = header("if-none-match").is_some() && etag.is_some()
                || header("if-match").is_some_and(|wanted| Some(wanted) != etag.as_deref())
                || header("x-goog-if-generation-match").is_some_and(|wanted| wanted != generation);
            if bad {
                return cloud.refusal(412, "PreconditionFailed");
            }
            let object = store.put(name, &asked.body, described(cloud, asked));
            written(cloud, &object, Answer::new(200, ""))
        }
        ("POST", _) if asked.has("uploads") => {
            let id = format!("upload-{}", store.number());
            let object = Object { headers: described(cloud, asked), ..Object::default() };
            store.uploads.insert(id.clone(), (object, Default::default()));
            let element = "InitiateMultipartUploadResult";
            Answer::xml(200, &format!("<{element}><UploadId>{id}</UploadId></{element}>"))
        }
        ("POST", name) => {
            let Some((object, parts)) = store.uploads.remove(upload.unwrap_or_default()) else {
                return cloud.refusal(404, "NoSuchUpload");
            };
            let body: Vec<u8> = parts.into_values().flatten().collect();
            let object = store.put(name, &body, object.headers);
            let element = "CompleteMultipartUploadResult";
            let answer = Answer::xml(200, &format!("<{element}><ETag>{}</ETag></{element}>", object.etag()));
            written(cloud, &object, answer).without("etag")
        }
        ("DELETE", _) if let Some(id) = upload => match store.uploads.remove(id) {
            Some(_) => Answer::new(204, ""),
            None => cloud.refusal(404, "NoSuchUpload"),
        },
        ("DELETE", name) => match store.objects.remove(name) {
            None if cloud == Cloud::Gcs => cloud.absent(),
            _ => Answer::new(204, ""),
        },
        _ => cloud.refusal(501, "NotImplemented"),
    }
}

/// The headers of a write that are sent back.
fn described(cloud: Cloud, asked: &Asked) -> Vec<(String, String)> {
    let kept = |name: &str| name.starts_with(cloud.meta()) || matches!(name, "content-type" | "content-encoding");
    asked.headers.clone().into_iter().filter(|(name, _)| kept(name)).collect()
}

fn written(cloud: Cloud, object: &Object, answer: Answer) -> Answer {
    let answer = answer.header("etag", object.etag());
    if cloud == Cloud::Gcs { answer.header("x-goog-generation", object.generation.to_string()) } else { answer }
}

pub(crate) fn read(cloud: Cloud, object: &Object, asked: &Asked) -> Answer {
    let mut answer = written(cloud, object, Answer::new(200, object.body.clone())).header("last-modified", TIME);
    answer.headers.extend(object.headers.clone());
    let range = asked.headers.get("range").or_else(|| asked.headers.get("x-ms-range"));
    let Some((start, end)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return answer;
    };
    let size = object.body.len();
    let (start, end) = match (start.parse::<usize>(), end.parse::<usize>()) {
        (Ok(start), Ok(last)) => (start, size.min(last + 1)),
        (Ok(start), Err(_)) => (start, size),
        (Err(_), last) => (size.saturating_sub(last.unwrap_or(0)), size),
    };
    if start >= end {
        return cloud.refusal(416, "InvalidRange");
    }
    answer.status = 206;
    answer.body = object.body[start..end].to_vec();
    answer.header("content-range", format!("bytes {start}-{}/{size}", end - 1))
}

fn list(store: &Store, asked: &Asked) -> Answer {
    let parameter = |name: &str| asked.query.get(name).map(String::as_str);
    let versions = asked.has("versions");
    let after = parameter("continuation-token").or(parameter("start-after")).or(parameter("key-marker"));
    let limit = parameter("max-keys").and_then(|limit| limit.parse().ok()).unwrap_or(1000);
    let prefix = parameter("prefix").unwrap_or_default();
    let (names, below, next) = store.page(prefix, after, asked.has("delimiter"), limit);
    let mut text = format!("<IsTruncated>{}</IsTruncated>", next.is_some());
    if let Some(next) = next {
        let element = if versions { "NextKeyMarker" } else { "NextContinuationToken" };
        // Writing to a string cannot fail.
        let _ = write!(text, "<{element}>{next}</{element}>");
    }
    let element = if versions { "Version" } else { "Contents" };
    for name in names {
        let object = &store.objects[&name];
        let _ = write!(
            text,
            "<{element}><Key>{name}</Key><LastModified>{LISTED}</LastModified><ETag>{}</ETag><Size>{}</Size>\
             <Generation>{2}</Generation><VersionId>{2}</VersionId></{element}>",
            object.etag(),
            object.body.len(),
            object.generation
        );
    }
    for prefix in below {
        let _ = write!(text, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    let root = if versions { "ListVersionsResult" } else { "ListBucketResult" };
    Answer::xml(200, &format!("<{root}>{text}</{root}>"))
}
