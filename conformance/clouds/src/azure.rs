//! The protocol of Azure Blob Storage.

use std::fmt::Write;

use crate::{Answer, Asked, Cloud, Object, Store, server::decode, xml};

const CLOUD: Cloud = Cloud::Azure;

pub(crate) fn serve(store: &mut Store, asked: &Asked) -> Answer {
    let header = |name: &str| asked.headers.get(name).map(String::as_str);
    let component = asked.query.get("comp").map(String::as_str).unwrap_or_default();
    match (asked.method.as_str(), asked.name.as_str(), component) {
        ("GET", "", "list") => list(store, asked),
        ("POST", "", "batch") => batch(store, asked),
        ("GET" | "HEAD", name, _) => match store.objects.get(name) {
            Some(object) => xml::read(CLOUD, object, asked),
            None => CLOUD.absent(),
        },
        ("PUT", name, "block") => {
            let id = asked.query.get("blockid").cloned().unwrap_or_default();
            store.blocks.insert((name.to_owned(), id), asked.body.clone());
            Answer::new(201, "")
        }
        ("PUT", name, "blocklist") => {
            let list = String::from_utf8_lossy(&asked.body).into_owned();
            let ids = list.split("<Uncommitted>").skip(1).filter_map(|rest| rest.split('<').next());
            let mut body = Vec::new();
            for id in ids {
                match store.blocks.get(&(name.to_owned(), id.to_owned())) {
                    Some(block) => body.extend_from_slice(block),
                    None => return CLOUD.refusal(400, "InvalidBlockList"),
                }
            }
            store.blocks.retain(|(blob, _), _| blob != name);
            let object = store.put(name, &body, described(asked));
            Answer::new(201, "").header("etag", object.etag()).header("last-modified", xml::TIME)
        }
        ("PUT", name, _) if header("x-ms-copy-source").is_some() => {
            let source = decode(header("x-ms-copy-source").unwrap_or_default());
            let source = source.split_once(CLOUD.root()).map_or("", |(_, name)| name.trim_start_matches('/'));
            let Some(object) = store.objects.get(source).cloned() else { return CLOUD.absent() };
            let object = store.put(name, &object.body, object.headers);
            Answer::new(202, "").header("etag", object.etag()).header("x-ms-copy-status", "success")
        }
        ("PUT", name, _) => {
            let etag = store.objects.get(name).map(Object::etag);
            let bad = header("if-none-match").is_some() && etag.is_some();
            if bad || header("if-match").is_some_and(|wanted| Some(wanted) != etag.as_deref()) {
                return CLOUD.refusal(412, "ConditionNotMet");
            }
            store.blocks.retain(|(blob, _), _| blob != name);
            let object = store.put(name, &asked.body, described(asked));
            Answer::new(201, "").header("etag", object.etag()).header("last-modified", xml::TIME)
        }
        ("DELETE", name, _) => match store.objects.remove(name) {
            Some(_) => Answer::new(202, ""),
            None => CLOUD.absent(),
        },
        _ => CLOUD.refusal(501, "FeatureNotSupported"),
    }
}

fn described(asked: &Asked) -> Vec<(String, String)> {
    let kept = asked.headers.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("x-ms-blob-content-").map_or(name.clone(), |name| format!("content-{name}"));
        let is_meta = name.starts_with(CLOUD.meta());
        (is_meta || matches!(&*name, "content-type" | "content-encoding")).then_some((name, value.clone()))
    });
    kept.collect()
}

fn batch(store: &mut Store, asked: &Asked) -> Answer {
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    let mut body = String::new();
    let deletes = text.lines().filter_map(|line| line.strip_prefix("DELETE "));
    for (at, line) in deletes.enumerate() {
        let path = decode(line.split([' ', '?']).next().unwrap_or_default());
        let name = path.strip_prefix(CLOUD.root()).unwrap_or_default().trim_start_matches('/').to_owned();
        let status = if store.objects.remove(&name).is_some() { "202 Accepted" } else { "404 Not Found" };
        // Writing to a string cannot fail.
        let _ = write!(
            body,
            "--batch\r\nContent-Type: application/http\r\nContent-ID: {at}\r\n\r\nHTTP/1.1 {status}\r\nx-ms-request-id: 1\r\n\r\n\r\n"
        );
    }
    Answer::new(202, body + "--batch--\r\n").header("content-type", "multipart/mixed; boundary=batch")
}

fn list(store: &Store, asked: &Asked) -> Answer {
    let parameter = |name: &str| asked.query.get(name).map(String::as_str);
    let limit = parameter("maxresults").and_then(|limit| limit.parse().ok()).unwrap_or(5000);
    let after = parameter("marker");
    let prefix = parameter("prefix").unwrap_or_default();
    let (names, below, next) = store.page(prefix, after, asked.has("delimiter"), limit);
    let mut text = String::new();
    for name in names {
        let object = &store.objects[&name];
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "<Blob><Name>{name}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag>\
             <Content-Length>{}</Content-Length></Properties></Blob>",
            xml::TIME,
            object.etag().trim_matches('"'),
            object.body.len()
        );
    }
    for prefix in below {
        let _ = write!(text, "<BlobPrefix><Name>{prefix}</Name></BlobPrefix>");
    }
    let next = next.unwrap_or_default();
    Answer::xml(
        200,
        &format!("<EnumerationResults><Blobs>{text}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"),
    )
}
