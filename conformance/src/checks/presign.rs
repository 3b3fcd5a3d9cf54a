//! Presigned requests: what anybody can do with one, and what nobody can.

use std::{sync::Arc, time::Duration};

use storage_core::{ErrorKind, Metadata, PresignOptions, PresignedRequest, Result};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_bytes, expect_eq},
    http::{Answer, send, send_as},
    support::{entry, expect_value, keys, noise, with_on},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A presigned `GET` answers the value as it is when the request is sent, a presigned `HEAD` its size; an absent key is 404.
/// Needs: presign
/// Profile: full
pub async fn reads(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(300_000), 1));
    for (key, value) in [("plain", &b"value"[..]), ("a b/ü?&#%2F+=", &large), ("../odd//", b""), ("dir/", b"v")] {
        s.put(key, "old").await?;
        let get = s.presign(key, PresignOptions::get(HOUR)).await?;
        let head = s.presign(key, PresignOptions::head(HOUR)).await?;
        let query = get.url.split_once('?').map_or("", |(_, query)| query);
        expect(query.is_empty() || !format!("{get:?}").contains(query), || {
            "Debug of a presigned request: expected the query of its URL hidden, saw it".into()
        })?;
        s.put(key, value.to_vec()).await?;
        let answer = send(&get, b"").await?;
        expect_eq(&format!("the status of a GET of {key:?}"), answer.status, 200)?;
        expect_bytes(&format!("a GET of {key:?}"), &answer.body, value)?;
        let answer = send(&head, b"").await?;
        expect_eq(&format!("the status of a HEAD of {key:?}"), answer.status, 200)?;
        let length = value.len().to_string();
        expect_eq("the length that HEAD answers", answer.header("content-length"), Some(length.as_str()))?;
        s.delete(key).await?;
        expect_eq("the status of a GET of an absent key", send(&get, b"").await?.status, 404)?;
        expect_eq("the status of a HEAD of an absent key", send(&head, b"").await?.status, 404)?;
    }
    Ok(())
}

/// A presigned `PUT` replaces value and metadata, and a presigned `DELETE` removes the value, where they are not `Unsupported`.
/// Needs: presign
/// Profile: full
pub async fn writes(c: Context) -> Outcome {
    let (s, large) = (&c.storage, noise(c.size(300_000), 2));
    for (key, value) in [("plain", &b"value"[..]), ("a b/ü?&#%2F+=", &large), ("../odd//", b"")] {
        s.put_with(key, "old", with_on(s, Metadata::new().tag("old"))).await?;
        let Some(put) = supported(s.presign(key, PresignOptions::put(HOUR)).await)? else { continue };
        done("PUT", &send(&put, value).await?)?;
        expect_value(s, key, Some(value)).await?;
        let written = entry(s, key).await?;
        expect_eq("the size after a presigned PUT", written.size, value.len() as u64)?;
        expect_eq("the metadata after a presigned PUT", written.metadata, Some(Arc::default()))?;
        let again = s.presign("new", PresignOptions::put(HOUR)).await?;
        done("PUT of a new key", &send(&again, value).await?)?;
        expect_value(s, "new", Some(value)).await?;
        s.delete("new").await?;
    }
    for key in ["plain", "a b/ü?&#%2F+="] {
        s.put(key, "value").await?;
        s.put("stays", "value").await?;
        let Some(delete) = supported(s.presign(key, PresignOptions::delete(HOUR)).await)? else { continue };
        done("DELETE", &send(&delete, b"").await?)?;
        expect_value(s, key, None).await?;
        expect(!keys(s, "").await?.iter().any(|listed| listed == key), || {
            format!("after a presigned DELETE: expected {key:?} not to be listed, saw it")
        })?;
        expect_value(s, "stays", Some(b"value")).await?;
    }
    Ok(())
}

/// A presigned request that has expired, was altered, or is sent with another method is refused and does nothing.
/// Needs: presign
/// Profile: full
pub async fn only_what_was_signed(c: Context) -> Outcome {
    checked(&c)?;
    let s = &c.storage;
    s.put("key-one", "value").await?;
    s.put("key-two", "other").await?;
    let get = s.presign("key-one", PresignOptions::get(HOUR)).await?;
    let short = s.presign("key-one", PresignOptions::get(Duration::from_secs(1))).await?;
    let expired = std::time::Instant::now() + Duration::from_millis(2500);
    expect_eq("the status of the request as it was signed", send(&get, b"").await?.status, 200)?;
    for method in ["PUT", "DELETE"] {
        refused(&format!("a presigned GET sent as {method}"), &send_as(method, &get.url, &[], b"forged").await?)?;
    }
    for (what, url) in
        [("with another signature", forged(&get)), ("of another key", get.url.replacen("key-one", "key-two", 1))]
    {
        if url != get.url {
            refused(&format!("a presigned GET {what}"), &send_as("GET", &url, &get.headers, b"").await?)?;
        }
    }
    if let Some(put) = supported(s.presign("key-one", PresignOptions::put(HOUR)).await)? {
        refused(
            "a presigned PUT with another signature",
            &send_as("PUT", &forged(&put), &put.headers, b"forged").await?,
        )?;
        refused("a presigned PUT sent as DELETE", &send_as("DELETE", &put.url, &put.headers, b"").await?)?;
    }
    tokio::time::sleep(expired.saturating_duration_since(std::time::Instant::now())).await;
    refused("a presigned GET after its lifetime", &send(&short, b"").await?)?;
    expect_value(s, "key-one", Some(b"value")).await?;
    expect_value(s, "key-two", Some(b"other")).await
}

/// A presigned `PUT` with a content type or length takes only what has it, or is `Unsupported`.
/// Needs: presign
/// Profile: full
pub async fn content_is_bound(c: Context) -> Outcome {
    let s = &c.storage;
    let bound = PresignOptions::put(HOUR).content_type("text/plain");
    if let Some(put) = supported(s.presign("typed", bound).await)? {
        if checked(&c).is_ok() {
            let other = [("content-type".to_owned(), "text/html".to_owned())];
            refused("a presigned PUT with another content type", &send_as("PUT", &put.url, &other, b"forged").await?)?;
            refused("a presigned PUT without its content type", &send_as("PUT", &put.url, &[], b"forged").await?)?;
            expect_value(s, "typed", None).await?;
        }
        done("PUT with its content type", &send(&put, b"value").await?)?;
        expect_value(s, "typed", Some(b"value")).await?;
    }
    let bound = PresignOptions::put(HOUR).content_length(5);
    if let Some(put) = supported(s.presign("long", bound).await)? {
        if checked(&c).is_ok() {
            refused("a presigned PUT of another length", &send(&put, b"forged").await?)?;
            expect_value(s, "long", None).await?;
        }
        done("PUT of its length", &send(&put, b"value").await?)?;
        expect_value(s, "long", Some(b"value")).await?;
    }
    Ok(())
}

/// Emulators of others need not look at signatures.
fn checked(c: &Context) -> Outcome {
    match c.target().kind() {
        "third-party emulator" => Err(Failure::NotRun("the emulator checks no signatures".into())),
        _ => Ok(()),
    }
}

/// Layers that must see each write refuse to presign one, and not every store can bind what is sent.
fn supported(presigned: Result<PresignedRequest>) -> Outcome<Option<PresignedRequest>> {
    match presigned {
        Err(e) if e.kind() == ErrorKind::Unsupported => Ok(None),
        presigned => Ok(Some(presigned?)),
    }
}

/// The URL with another last digit, which is one of the signature where stores put it last.
fn forged(request: &PresignedRequest) -> String {
    let mut url = request.url.clone();
    let last = if url.pop() == Some('0') { '1' } else { '0' };
    url + &last.to_string()
}

fn done(what: &str, answer: &Answer) -> Outcome {
    expect(answer.is_success(), || format!("a presigned {what}: expected success, saw the status {}", answer.status))
}

fn refused(what: &str, answer: &Answer) -> Outcome {
    expect(answer.is_refusal(), || format!("{what}: expected a refusal (4xx), saw the status {}", answer.status))
}
