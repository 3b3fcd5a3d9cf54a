//! Reading from a store that keeps attributes, and what all reads share. `framed.rs` has the other stores.

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use futures_util::{StreamExt, stream};
use object_store::{
    Attributes, Error as NativeError, GetOptions as Get, GetRange, GetResult, GetResultPayload, ObjectMeta,
    ObjectStore, path::Path,
};
use storage_core::{ByteRange, Entry, Error, ErrorKind, Etag, GetOptions, Key, Object, Result, VersionId};

use crate::{backend::Inner, error, meta, source::Source, write::bare};

/// How often a read is made again that met a write.
const AGAIN: usize = 4;

impl Inner {
    pub(crate) async fn read(&self, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        if self.framed {
            return self.read_framed(key, options).await;
        }
        let place = self.names.place(key);
        let mut get = Get::new();
        let looked_at = self.profile.by_version && (options.if_match.is_some() || options.if_none_match.is_some());
        if looked_at && !self.look(&place, &mut options).await? {
            return Ok(None);
        }
        if let Some(etag) = options.if_match {
            if !self.is_one(&etag) {
                return Err(error::mismatch(&etag));
            }
            get.if_match = Some(etag.to_string());
        }
        let known = options.if_none_match.filter(|etag| self.is_one(etag));
        get.if_none_match = known.map(|etag| etag.to_string());
        get.version = options.version.as_ref().map(VersionId::to_string);
        let result = match options.range {
            None => self.get(&place, get).await,
            Some(range) => self.get_range(&place, get, range).await,
        };
        let result = missing_is_none(result, options.version.as_ref())?;
        let Some(result) = result else {
            return if looked_at { Err(error::changed()) } else { Ok(None) };
        };
        let entry = self.entry(key, &result.meta, &result.attributes)?;
        let range = result.range.clone();
        let body = Source::from(result).body(range, options.prefer_buffered).await?;
        Ok(Some(Object::new(entry, body)))
    }

    /// Settles the conditions of a read by looking at the object; what is left to do is to read that version. `false` when there is
    /// none.
    async fn look(&self, place: &Path, options: &mut GetOptions) -> Result<bool> {
        let (if_match, if_none_match) = (options.if_match.take(), options.if_none_match.take());
        let mut head = Get::new().with_head(true);
        head.version = options.version.as_ref().map(VersionId::to_string);
        let found = missing_is_none(self.get(place, head).await, options.version.as_ref())?;
        let version = found.and_then(|found| found.meta.version);
        match (if_match, if_none_match) {
            (Some(etag), _) if version.as_deref() != Some(etag.as_str()) => return Err(error::mismatch(&etag)),
            (_, Some(etag)) if version.as_deref() == Some(etag.as_str()) => return Err(error::not_modified()),
            _ => {}
        }
        options.version = version.map(VersionId::from);
        Ok(options.version.is_some())
    }

    pub(crate) async fn describe(&self, key: &Key, version: Option<&VersionId>) -> Result<Option<Entry>> {
        if self.framed {
            return self.describe_framed(key).await;
        }
        let mut head = Get::new().with_head(true);
        head.version = version.map(VersionId::to_string);
        match missing_is_none(self.get(&self.names.place(key), head).await, version)? {
            Some(result) => self.entry(key, &result.meta, &result.attributes).map(Some),
            None => Ok(None),
        }
    }

    /// An entry as a listing knows it, without metadata.
    pub(crate) fn listed(&self, key: Key, about: &ObjectMeta) -> Entry {
        if self.framed {
            return self.listed_framed(key, about);
        }
        let mut entry = Entry::new(key, about.size);
        entry.modified = self.modified(about);
        entry.etag = self.profile.shown(about.e_tag.clone(), about.version.clone()).map(Etag::from);
        entry
    }

    /// Whether this is one etag, not HTTP's `*` for any or a list of several, which the contract knows nothing of, nor one that no
    /// store has given out, for instance an empty one, which is a header that means nothing. A version is a number, and not 0,
    /// which stands for no version.
    pub(crate) fn is_one(&self, etag: &Etag) -> bool {
        if self.profile.by_version {
            let number = etag.as_str();
            return !number.starts_with(['0', '+', '-']) && number.parse::<i64>().is_ok();
        }
        let etag = bare(etag.as_str());
        !etag.is_empty() && etag.bytes().all(|c| (c.is_ascii_graphic() || c == b' ') && !matches!(c, b',' | b'*'))
    }

    /// `None` when there is no such object; under `if_match` that is a mismatch.
    pub(crate) async fn get(&self, place: &Path, get: Get) -> Result<Option<GetResult>> {
        let if_match = get.if_match.clone();
        match (self.answered(place, get).await, if_match) {
            (Ok(result), _) => Ok(Some(result)),
            (Err(NativeError::NotFound { .. }), None) => Ok(None),
            (Err(NativeError::NotFound { .. } | NativeError::Precondition { .. }), Some(etag)) => {
                Err(error::mismatch(&Etag::from(etag)))
            }
            (Err(e), _) => Err(error::read(e)),
        }
    }

    /// The answer to a read. Where a server leaves open what was asked, it is asked in another way: an answer to `HEAD` has no body
    /// that could say whether a 404 is the store's, and one without a length may have it in that to a request for a range.
    async fn answered(&self, place: &Path, mut get: Get) -> object_store::Result<GetResult> {
        let mut left = AGAIN;
        loop {
            let left_open = match self.store.get_opts(place, get.clone()).await {
                // Ceph has no name for a read that met a write.
                Err(e) if left > 0 && error::is_lost_race(&e) => {
                    left -= 1;
                    continue;
                }
                Err(e) if error::is_left_open(&e) => e,
                said => return said,
            };
            match (get.head, &get.range) {
                (true, _) => get.head = false,
                (false, None) => get.range = Some(GetRange::Offset(0)),
                (false, Some(_)) => return Err(left_open),
            }
        }
    }

    /// The positions of an object that was looked at before. `Conflict` if it has changed since.
    pub(crate) async fn get_same(
        &self,
        place: &Path,
        about: &ObjectMeta,
        positions: std::ops::Range<u64>,
        version: Option<String>,
    ) -> Result<GetResult> {
        let mut same = Get::new().with_range(Some(positions)).with_if_match(about.e_tag.as_deref());
        same.version = version;
        if self.profile.by_version {
            (same.if_match, same.version) = (None, about.version.clone());
        }
        self.store.get_opts(place, same).await.map_err(|e| match e {
            NativeError::NotFound { .. } | NativeError::Precondition { .. } => error::changed(),
            e => error::read(e),
        })
    }

    /// When an object was written. A store that does not say that, says the beginning of all time.
    pub(crate) fn modified(&self, about: &ObjectMeta) -> Option<SystemTime> {
        let unknown = self.native.is_some() && about.last_modified == DateTime::UNIX_EPOCH;
        (!unknown).then(|| self.time(about.last_modified.into()))
    }

    /// A time in the steps that `limits.time_granularity` promises: some stores tell more in a listing than in other answers.
    pub(crate) fn time(&self, time: SystemTime) -> SystemTime {
        let step = self.info.limits.time_granularity.as_nanos();
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let over = since.map_or(0, |since| since.as_nanos().checked_rem(step).unwrap_or(0));
        time - Duration::from_nanos(over as u64)
    }

    /// Most ranges are one request. One that the store refuses (empty, at the end or beyond, or the last bytes where its
    /// protocol has no such thing) is looked at again once the size is known.
    async fn get_range(&self, place: &Path, get: Get, range: ByteRange) -> Result<Option<GetResult>> {
        let native = match range {
            ByteRange::Bounded(start, end) if start < end => Some(GetRange::Bounded(start..end)),
            ByteRange::From(start) => Some(GetRange::Offset(start)),
            ByteRange::Suffix(n) if n > 0 => Some(GetRange::Suffix(n)),
            _ => None,
        };
        let mut refusal = None;
        if native.is_some() {
            match self.get(place, get.clone().with_range(native)).await {
                Err(e) if is_refusal(&e) => refusal = Some(e),
                done => return done,
            }
        }
        let version = get.version.clone();
        let Some(mut about) = self.get(place, get.with_head(true)).await? else {
            return Ok(None);
        };
        let positions = range.resolve(about.meta.size)?;
        match (positions.is_empty(), range, refusal) {
            (true, ..) => {
                about.range = positions;
                about.payload = GetResultPayload::Stream(stream::empty().boxed());
                Ok(Some(about))
            }
            (false, ByteRange::Suffix(_), _) | (false, _, None) => {
                self.get_same(place, &about.meta, positions, version).await.map(Some)
            }
            (false, _, Some(e)) => Err(e),
        }
    }

    fn entry(&self, key: &Key, about: &ObjectMeta, attributes: &Attributes) -> Result<Entry> {
        let mut entry = Entry::new(key.clone(), about.size);
        entry.modified = self.modified(about);
        entry.etag = self.profile.shown(about.e_tag.clone(), about.version.clone()).map(Etag::from);
        if self.info.capabilities.versioning {
            entry.version = about.version.clone().map(VersionId::from);
        }
        entry.metadata = Some(meta::from_attributes(attributes)?);
        if let Some(etag) = &entry.etag {
            self.sound.remember(key, etag);
        }
        Ok(entry)
    }
}

/// Stores have no error of their own for a range that cannot be had.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Other | ErrorKind::Unsupported | ErrorKind::RangeNotSatisfiable)
}

/// Stores differ in how they say that there is no such version, or nothing but what a delete has left.
fn missing_is_none(result: Result<Option<GetResult>>, version: Option<&VersionId>) -> Result<Option<GetResult>> {
    match result {
        Err(e) if version.is_some() && e.kind() == ErrorKind::NotFound => Ok(None),
        result => result,
    }
}
