//! Writing: in one request where the value fits, else by parts that nobody sees before the last.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::{
    Attributes, Error as NativeError, GetOptions as Get, MultipartUpload, PutMode, PutMultipartOptions,
    PutOptions as Put, PutPayload, PutPayloadMut, PutResult, path::Path,
};
use storage_core::{
    Body, ByteStream, Condition, Entry, Error, ErrorKind, Etag, Key, Metadata, PutOptions, Result, VersionId,
};
use tokio::task::JoinSet;

use crate::{Config, backend::Inner, error, meta};

/// How often a conditional write is made again that met another one.
const AGAIN: usize = 4;
/// Pieces below this size are copied together: one by one they would cost more to remember than they weigh.
const SMALL: usize = 16 << 10;

impl Inner {
    pub(crate) async fn write(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let metadata = options.metadata.unwrap_or_default();
        let place = self.names.place(key);
        let mut payload = PutPayloadMut::new();
        let (attributes, token) = if self.framed {
            let token = meta::token();
            payload.push(meta::header(&metadata, &token)?);
            (Attributes::new(), Some(Etag::from(meta::text(&token))))
        } else {
            (meta::attributes(&metadata), None)
        };

        let limit = match options.condition {
            None => self.config.part_size.get(),
            Some(_) if body.is_in_memory() => usize::MAX,
            Some(_) => self.config.conditional_limit,
        };
        let mut pieces = body.into_stream();
        let mut whole = false;
        let mut size = 0_u64;
        while !whole && size <= limit as u64 {
            match pieces.try_next().await? {
                Some(piece) => {
                    size += piece.len() as u64;
                    match piece.len() {
                        ..SMALL => payload.extend_from_slice(&piece),
                        _ => payload.push(piece),
                    }
                }
                None => whole = true,
            }
        }
        let start = payload.freeze();
        let result = if whole {
            self.put_whole(key, &place, start, attributes, options.condition).await?
        } else if options.condition.is_some() {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("a streamed value under a condition has at most {limit} bytes; raise `conditional_limit`"),
            ));
        } else {
            let mark = token.clone().unwrap_or_else(meta::mark);
            let mut attributes = attributes;
            if !self.framed {
                attributes.insert(meta::UPLOAD, mark.to_string().into());
            }
            let parts = PutMultipartOptions::from(attributes);
            let (result, more) = match self.put_parts(key, &place, start, pieces, size, parts).await? {
                (Ok(result), more) => (result, more),
                (Err(e), more) => (self.ended(key, &place, &mark, e).await?, more),
            };
            size += more;
            result
        };
        Ok(self.written(key, &place, size, result, token, metadata).await)
    }

    async fn put_whole(
        &self,
        key: &Key,
        place: &Path,
        payload: PutPayload,
        attributes: Attributes,
        condition: Option<Condition>,
    ) -> Result<PutResult> {
        if let Some(Condition::IfMatch(etag)) = &condition {
            self.look_unless_sound(key, etag).await?;
        }
        let mut options = Put::from(attributes);
        options.mode = match &condition {
            None => PutMode::Overwrite,
            Some(Condition::IfAbsent) => PutMode::Create,
            Some(Condition::IfMatch(etag)) if !self.is_one(etag) => return Err(error::mismatch(etag)),
            Some(Condition::IfMatch(etag)) => {
                let sent = if self.unquoted { bare(etag.as_str()) } else { etag.as_str() };
                self.profile.update(sent.to_owned())
            }
            Some(_) => return Err(Error::unsupported("this condition")),
        };
        let mut left = if condition.is_some() { AGAIN } else { 0 };
        loop {
            let (store, place) = (self.store.clone(), place.clone());
            let (payload, options) = (payload.clone(), options.clone());
            let request = async move { store.put_opts(&place, payload, options).await };
            let result = self.requests.send(key, request).await;
            let lost = self.unquoted && result.as_ref().is_err_and(error::is_lost_race);
            let error = match (result, &condition) {
                (Ok(done), _) => return Ok(done),
                (
                    Err(NativeError::NotFound { .. } | NativeError::Precondition { .. }),
                    Some(Condition::IfMatch(etag)),
                ) => {
                    return Err(error::mismatch(etag));
                }
                (Err(e), Some(Condition::IfAbsent)) => error::write(e),
                (Err(e), _) => error::overwrite(e),
            };
            // Another writer came between the look at the condition and the write. Nothing was written, so asking again says
            // what has become of the condition.
            if !lost && error.kind() != ErrorKind::Conflict || left == 0 {
                return Err(error);
            }
            left -= 1;
        }
    }

    /// No condition holds of a damaged object. Whether any holds otherwise, the write itself finds out.
    async fn look_unless_sound(&self, key: &Key, etag: &Etag) -> Result<()> {
        if !self.is_one(etag) || self.sound.remembers(key, etag) {
            return Ok(());
        }
        match self.describe(key, None).await {
            Err(e) if e.kind() == ErrorKind::Corrupt => Err(error::mismatch(etag).with_source(e)),
            Err(e) => Err(e),
            Ok(_) => Ok(()),
        }
    }

    /// What the end of the upload has led to, and the number of bytes that came in pieces.
    async fn put_parts(
        &self,
        key: &Key,
        place: &Path,
        start: PutPayload,
        pieces: ByteStream,
        already: u64,
        options: PutMultipartOptions,
    ) -> Result<(Result<PutResult>, u64)> {
        let (store, place) = (self.store.clone(), place.clone());
        let begin = async move {
            let upload = store.put_multipart_opts(&place, options).await.map_err(error::read)?;
            Ok(Upload { native: Some(upload), parts: JoinSet::new(), next: PutPayloadMut::new() })
        };
        // It changes no key. But what it begins must be aborted if nobody takes it.
        let mut upload = self.requests.send(Vec::new(), begin).await?;
        match self.send(&mut upload, start, pieces, already).await {
            Ok(more) => {
                if let Err(e) = upload.last(&self.config).await {
                    upload.abort().await;
                    return Err(e);
                }
                Ok((self.requests.send(key, upload.complete()).await, more))
            }
            Err(e) => {
                upload.abort().await;
                Err(e)
            }
        }
    }

    /// What has become of an upload whose end failed. Its request may have been done and its answer lost, and something on the way
    /// may have sent it again, to be told that there is no such upload. So the value is looked at, which has the mark of the upload
    /// if that was done.
    async fn ended(&self, key: &Key, place: &Path, mark: &Etag, error: Error) -> Result<PutResult> {
        let open = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::Unavailable);
        if !open && !error.is_ambiguous() {
            return Err(error);
        }
        let (ours, there) = match self.marked(key, place).await {
            Ok(Some((found, result))) if found.as_ref() == Some(mark) => (Some(result), true),
            Ok(found) => (None, found.is_some()),
            Err(looked) => {
                tracing::warn!(error = %looked, "whether an upload was completed could not be looked at");
                (None, false)
            }
        };
        match (ours, error::no_upload(&error)) {
            (Some(result), _) => Ok(result),
            // Another write has ended the upload, and there is another value.
            (None, Some(true)) if there => Err(error),
            // The store refuses for another reason.
            (None, None) if error.kind() == ErrorKind::Conflict => Err(error),
            (None, _) => Err(error.ambiguous()),
        }
    }

    /// The mark of the upload that an object was, and what its answer would have been; `None` where there is no object.
    async fn marked(&self, key: &Key, place: &Path) -> Result<Option<(Option<Etag>, PutResult)>> {
        let done = |e_tag, version| PutResult { e_tag, version, extensions: Default::default() };
        if self.framed {
            let entry = self.describe_framed(key).await?;
            return Ok(entry.map(|entry| (entry.etag, done(None, None))));
        }
        let found = self.get(place, Get::new().with_head(true)).await?;
        Ok(found.map(|found| {
            let mark = found.attributes.get(&meta::UPLOAD).map(|mark| Etag::new(mark.as_ref()));
            (mark, done(found.meta.e_tag, found.meta.version))
        }))
    }

    async fn send(&self, upload: &mut Upload, start: PutPayload, mut pieces: ByteStream, already: u64) -> Result<u64> {
        for piece in start {
            upload.send(piece, &self.config).await?;
        }
        let mut more = 0;
        while let Some(piece) = pieces.try_next().await? {
            more += piece.len() as u64;
            let max = self.info.limits.value;
            if already + more > max {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("the value is larger than {max} bytes; raise `part_size`"),
                ));
            }
            upload.send(piece, &self.config).await?;
        }
        Ok(more)
    }

    /// The entry of a write that has happened, as far as the answer says. A store that does not say which value it has become is asked.
    async fn written(
        &self,
        key: &Key,
        place: &Path,
        size: u64,
        result: PutResult,
        token: Option<Etag>,
        metadata: Arc<Metadata>,
    ) -> Entry {
        let mut entry = Entry::new(key.clone(), size);
        entry.stored_size = self.framed.then_some(size + meta::HEADER);
        entry.metadata = Some(metadata);
        entry.modified = time_said(&result).map(|time| self.time(time));
        if self.info.capabilities.versioning {
            entry.version = result.version.clone().map(VersionId::from);
        }
        // An upload by parts may be told its etag alone, where others are told their version too.
        let known = |etag: &Option<String>, version: &Option<String>| match &result.version {
            Some(written) if self.profile.by_version => version.as_ref() == Some(written),
            _ => result.e_tag.is_none() || *etag == result.e_tag,
        };
        let mut etag = self.profile.shown(result.e_tag.clone(), result.version.clone());
        let unnamed = token.is_none() && etag.is_none();
        if unnamed || self.info.capabilities.versioning && entry.version.is_none() {
            match self.get(place, Get::new().with_head(true)).await.map(|found| found.map(|found| found.meta)) {
                Ok(Some(now)) if known(&now.e_tag, &now.version) => {
                    entry.modified = self.modified(&now);
                    if self.info.capabilities.versioning {
                        entry.version = now.version.clone().map(VersionId::from);
                    }
                    etag = self.profile.shown(now.e_tag, now.version);
                }
                // Somebody else has written since.
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "what a write has become could not be read"),
            }
        }
        entry.etag = token.or(etag.map(Etag::from));
        if let Some(etag) = &entry.etag {
            self.sound.remember(key, etag);
        }
        entry
    }
}

#[cfg(feature = "http")]
fn time_said(result: &PutResult) -> Option<std::time::SystemTime> {
    result.extensions.get::<crate::http::ResponseHints>()?.modified.map(Into::into)
}

#[cfg(not(feature = "http"))]
fn time_said(_: &PutResult) -> Option<std::time::SystemTime> {
    None
}

/// An etag without the quotes that HTTP puts around it.
pub(crate) fn bare(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

/// An upload by parts that is given up when it is dropped.
struct Upload {
    native: Option<Box<dyn MultipartUpload>>,
    /// Those under way.
    parts: JoinSet<object_store::Result<()>>,
    /// The one that is not full yet.
    next: PutPayloadMut,
}

impl Upload {
    async fn send(&mut self, mut piece: Bytes, config: &Config) -> Result<()> {
        while !piece.is_empty() {
            let room = config.part_size.get() - self.next.content_length();
            let start = piece.split_to(piece.len().min(room));
            match start.len() {
                ..SMALL => self.next.extend_from_slice(&start),
                _ => self.next.push(start),
            }
            if self.next.content_length() == config.part_size.get() {
                self.part(config).await?;
            }
        }
        Ok(())
    }

    /// Nothing is visible yet, so whatever fails here, the outcome is definite.
    async fn part(&mut self, config: &Config) -> Result<()> {
        self.wait(config.parts_in_flight.get() - 1).await?;
        let part = std::mem::take(&mut self.next).freeze();
        if let Some(native) = &mut self.native {
            self.parts.spawn(native.put_part(part));
        }
        Ok(())
    }

    /// Until no more than so many parts are under way.
    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.parts.len() > most {
            if let Some(done) = self.parts.join_next().await {
                done.map_err(error::task)?.map_err(error::read)?;
            }
        }
        Ok(())
    }

    /// Sends what is left, and waits for all parts.
    async fn last(&mut self, config: &Config) -> Result<()> {
        if !self.next.is_empty() {
            self.part(config).await?;
        }
        self.wait(0).await
    }

    async fn complete(mut self) -> Result<PutResult> {
        let Some(mut native) = self.native.take() else {
            return Err(Error::new(ErrorKind::Other, "the upload has ended already"));
        };
        let done = native.complete().await.map_err(error::overwrite).map(|mut done| {
            // Ceph answers so when the end of an upload was sent again: then it is asked.
            done.e_tag = done.e_tag.filter(|etag| !bare(etag).is_empty());
            done
        });
        // What may be complete, or about to be, is not aborted.
        if done.as_ref().is_err_and(|e| !e.is_ambiguous()) {
            self.native = Some(native);
            self.abort().await;
        }
        done
    }

    async fn abort(mut self) {
        // A part that arrives behind the end would stay.
        self.parts.shutdown().await;
        if let Some(upload) = self.native.take() {
            give_up(upload).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.native.take(), tokio::runtime::Handle::try_current()) {
            let mut parts = std::mem::take(&mut self.parts);
            runtime.spawn(async move {
                parts.shutdown().await;
                give_up(upload).await;
            });
        }
    }
}

async fn give_up(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "an unfinished upload could not be aborted; the store keeps its parts until it sweeps them");
    }
}
