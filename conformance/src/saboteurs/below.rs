//! Layers that make the wrong thing of what fails below them, or print what they must not.

use data_encoding::BASE64;
use futures_util::{StreamExt, future::ready, stream::BoxStream};
use storage_core::{
    Body, Bytes, Capabilities, Entry, EntryStream, Error, ErrorKind, GetOptions, Key, ListItem, ListOptions,
    ListStream, Object, PutOptions, Query, RenameOptions, Result, StatOptions, async_trait, defaults,
};

use super::{
    Saboteur, table,
    wrap::{Fault, Sides, listed, streamed, whole, wrap},
};
use crate::{Namespace, faults::Settings};

table! {
    swallows_what_fails_below = Swallows => ["faults/fail_before"];
    calls_what_is_ambiguous_definite = CallsItDefinite => ["faults/fail_after"];
    denies_half_a_rename = DeniesHalfARename => ["faults/fail_before"];
    takes_a_part_for_the_whole = PartForTheWhole => ["faults/short_body"];
    takes_a_broken_listing_for_whole = BrokenIsWhole::Listing => ["faults/broken_streams"];
    takes_a_broken_answer_for_whole = BrokenIsWhole::Answer => ["faults/broken_streams"];
    takes_broken_versions_for_all = BrokenIsWhole::Versions => ["faults/broken_streams"];
    finds_nothing_where_nothing_answers = FindsNothing => ["damaged/reads_are_corrupt", "faults/failed_reads"];
    denies_its_own_creation = DeniesCreation => ["faults/failed_conditions_and_batches"];
    stumbles_over_foreign_names = Stumbles => ["keys/foreign_names_do_not_break_listing"];
    prints_its_password = Prints => ["errors/secrets_redacted"];
    logs_its_password = Logs => ["errors/secrets_redacted"];
    prints_its_password_percent_encoded = Writes(|| percent_encoded(super::PASSWORD)) => ["errors/secrets_redacted"];
    prints_its_password_encoded_twice = Writes(|| percent_encoded(super::PASSWORD).replace('%', "%25")) => ["errors/secrets_redacted"];
    prints_its_password_as_a_form = Writes(|| percent_encoded(super::PASSWORD).replace("%20", "+")) => ["errors/secrets_redacted"];
    prints_its_password_escaped = Writes(|| format!("{:?}", super::PASSWORD)) => ["errors/secrets_redacted"];
    prints_its_password_escaped_twice = Writes(|| format!("{:?}", format!("{:?}", super::PASSWORD))) => ["errors/secrets_redacted"];
    prints_its_password_in_user_info = Writes(|| format!("Basic {}", BASE64.encode(format!("me:{}", super::PASSWORD).as_bytes())))
        => ["errors/secrets_redacted"];
}

/// Writes reach the store by a way on which the faults of the suite do not lie.
pub(super) const GOES_AROUND: Saboteur = Saboteur {
    group: module_path!(),
    name: "goes_around",
    catches: &["faults/fail_after", "faults/fail_before"],
    pins: Capabilities::new(),
    base: super::Base::Memory,
    wrap: |inner, namespace| wrap(inner, GoesAround(namespace)),
};

#[derive(Debug)]
struct GoesAround(Namespace);

#[async_trait]
impl Fault for GoesAround {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if let Some(plan) = self.0.plan() {
            plan.change(|plan| *plan = Settings::default());
        }
        s.inner.put(key, body, options).await
    }
}

/// A put that failed below is taken for done.
#[derive(Debug)]
struct Swallows;

#[async_trait]
impl Fault for Swallows {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        match s.inner.put(key, body, options).await {
            Err(e) if e.kind() == ErrorKind::Unavailable => Ok(Entry::new(key.clone(), 0)),
            result => result,
        }
    }
}

#[derive(Debug)]
struct CallsItDefinite;

#[async_trait]
impl Fault for CallsItDefinite {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        s.inner.put(key, body, options).await.map_err(|e| {
            if e.is_ambiguous() { Error::new(ErrorKind::Timeout, "no answer; try again").with_source(e) } else { e }
        })
    }
}

/// A rename that has written its target and not deleted its source is told as if nothing were done.
#[derive(Debug)]
struct DeniesHalfARename;

#[async_trait]
impl Fault for DeniesHalfARename {
    async fn rename(&self, s: Sides<'_>, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let done = defaults::rename(s.inner, from, to, options).await;
        done.map_err(|e| match e.kind() {
            ErrorKind::Unavailable => Error::new(e.kind(), "the rename failed; try again").with_source(e),
            _ => e,
        })
    }
}

/// What came before a read broke off is passed on as if it were everything.
#[derive(Debug)]
struct PartForTheWhole;

#[async_trait]
impl Fault for PartForTheWhole {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        let (mut entry, mut body) = (object.entry, object.body.into_stream());
        let (mut bytes, mut broken) = (Vec::new(), false);
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(_) => broken = true,
            }
        }
        if broken {
            entry.size = bytes.len() as u64;
        }
        Ok(Some(Object::new(entry, Bytes::from(bytes))))
    }
}

/// What came before a stream of entries broke off is all there is.
#[derive(Debug, PartialEq)]
enum BrokenIsWhole {
    Listing,
    Answer,
    Versions,
}

fn unbroken<T: Send + 'static>(stream: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
    stream.take_while(|item| ready(item.is_ok())).boxed()
}

#[async_trait]
impl Fault for BrokenIsWhole {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let listing = s.inner.list(options).await?;
        Ok(if *self == Self::Listing { unbroken(listing) } else { listing })
    }

    async fn query(&self, s: Sides<'_>, query: Query) -> Result<EntryStream> {
        let answer = s.inner.query(query).await?;
        Ok(if *self == Self::Answer { unbroken(answer) } else { answer })
    }

    async fn versions(&self, s: Sides<'_>, key: &Key) -> Result<EntryStream> {
        let versions = s.inner.versions(key).await?;
        Ok(if *self == Self::Versions { unbroken(versions) } else { versions })
    }
}

#[derive(Debug)]
struct FindsNothing;

#[async_trait]
impl Fault for FindsNothing {
    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        Ok(s.inner.stat(key, options).await.unwrap_or_default())
    }
}

/// A creation that may have been done is tried again, and finds itself.
#[derive(Debug)]
struct DeniesCreation;

#[async_trait]
impl Fault for DeniesCreation {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        match s.inner.put(key, bytes.clone().into(), options.clone()).await {
            Err(e) if e.is_ambiguous() && options.condition.is_some() => s.inner.put(key, bytes.into(), options).await,
            done => done,
        }
    }
}

/// A name that is not its own fails the whole listing.
#[derive(Debug)]
struct Stumbles;

#[async_trait]
impl Fault for Stumbles {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let items = listed(s, options).await?;
        if items.iter().map(ListItem::position).any(|key| key.starts_with(super::FOREIGN)) {
            return Err(Error::new(ErrorKind::Corrupt, "a name that was not written by this backend"));
        }
        Ok(streamed(items))
    }
}

#[derive(Debug)]
struct Prints;

#[async_trait]
impl Fault for Prints {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        s.inner.get(key, options).await.map_err(|e| {
            let cause = format!("GET https://user:{}@host/", super::PASSWORD);
            Error::new(e.kind(), "the server refused; see the cause").with_source(cause)
        })
    }
}

/// The password in another notation, in the error of a read.
#[derive(Debug)]
struct Writes(fn() -> String);

#[async_trait]
impl Fault for Writes {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        s.inner.get(key, options).await.map_err(|e| Error::new(e.kind(), format!("GET {} failed", self.0())))
    }
}

fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[derive(Debug)]
struct Logs;

#[async_trait]
impl Fault for Logs {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes: Vec<u8> = super::PASSWORD.into();
        tracing::trace!(?bytes, "signing");
        s.inner.put(key, body, options).await
    }
}
