//! Reads: what an answer says of a value, and its bytes.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE},
};
use storage_core::{
    Body, Entry, Error, ErrorKind, Etag, GetOptions, Key, Metadata, Object, Result, StatOptions, VersionId,
};
use storage_rest_wire::{EntryJson, etag, etag::Listed, headers, key as keys, parse_metadata_header, range};

use crate::{
    connect::{Remote, set},
    error,
    http::{Http, declared, text},
};

/// Values of at most so many bytes are read at once.
const SMALL: u64 = 64 << 10;
/// The same where the caller says that it collects them anyway.
const BUFFERED: u64 = 8 << 20;

impl Remote {
    pub(crate) async fn read(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let mut params = Vec::new();
        if let Some(version) = &options.version {
            params.push(("version", version.as_str()));
        }
        if !options.entry {
            params.push(("entry", "false"));
        }
        let mut request = self.request(Method::GET, &format!("v1/objects/{}", keys::encode(key)), &params)?;
        if let Some(asked) = options.range {
            let asked = range::header(asked).ok_or_else(|| Error::unsupported("this range"))?;
            set(&mut request, RANGE.as_str(), &asked)?;
        }
        if let Some(tag) = &options.if_match {
            set(&mut request, IF_MATCH.as_str(), &etag::quoted(tag))?;
        }
        if let Some(tag) = &options.if_none_match {
            set(&mut request, IF_NONE_MATCH.as_str(), &etag::quoted(tag))?;
        }
        let http = self.http();
        let response = http.read(request).await?;
        let (status, map) = (response.status(), response.headers().clone());
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            StatusCode::NOT_MODIFIED if options.if_none_match.is_some() => {
                return Err(Error::new(ErrorKind::NotModified, "the value still has the etag that the caller knows"));
            }
            StatusCode::NOT_FOUND if is_absent(&map) => return Ok(None),
            // An empty range, which HTTP does not have, at the very end of the value.
            StatusCode::RANGE_NOT_SATISFIABLE if map.contains_key(headers::ENTRY) || text(&map, "etag").is_some() => {
                let size = content_range(&map)?.1;
                let entry = described(key, &map, size, options.entry)?;
                return Ok(Some(Object::new(entry, Body::default())));
            }
            _ => return Err(self.refused(response).await),
        }
        let (found, size) = match status {
            StatusCode::PARTIAL_CONTENT => content_range(&map)?,
            _ => {
                let size = declared(&map).ok_or_else(|| error::strange("it does not say its length"))?;
                (None, size)
            }
        };
        if !options.entry && text(&map, ETAG.as_str()).is_some_and(|tag| tag.starts_with("W/")) {
            // It was weakened on its way; with the whole entry comes the store's own.
            return Box::pin(self.read(key, options.entry(true))).await;
        }
        let entry = described(key, &map, size, options.entry)?;
        // What stands between may have left the conditions out.
        if options.if_match.is_some() && options.if_match != entry.etag {
            return Err(Error::new(ErrorKind::PreconditionFailed, "the value has another etag"));
        }
        if options.if_none_match.is_some() && options.if_none_match == entry.etag {
            return Err(Error::new(ErrorKind::NotModified, "the value still has the etag that the caller knows"));
        }
        let wanted = match options.range {
            None => 0..size,
            Some(asked) => asked.resolve(size)?,
        };
        let there = match found {
            Some(found) if found == wanted || wanted.is_empty() => found,
            Some(_) => return Err(error::strange("it is another range")),
            None => 0..size,
        };
        let len = wanted.end - wanted.start;
        let limit = if options.prefer_buffered { BUFFERED } else { SMALL };
        let body = match there == wanted && len <= limit {
            true => {
                let whole = http.bytes(response, usize::try_from(len).unwrap_or(usize::MAX)).await;
                let whole = match whole {
                    Ok(whole) if whole.len() as u64 == len => whole,
                    Ok(_) => return Err(self.broken(key, &entry, error::broke_off(), options.version.is_some()).await),
                    Err(e) => return Err(self.broken(key, &entry, e, options.version.is_some()).await),
                };
                Body::from(whole)
            }
            false => self.streamed(response, &entry, cut(&wanted, &there), options.version.is_some()),
        };
        Ok(Some(Object::new(entry, body)))
    }

    /// The bytes of an answer, without those before and behind the range.
    fn streamed(&self, response: Response, entry: &Entry, (skip, len): (u64, u64), old: bool) -> Body {
        if len == 0 {
            return Body::default();
        }
        let (remote, entry) = (self.clone(), entry.clone());
        let pieces = pieces(self.http().clone(), response, skip, len).then(move |piece| {
            let (remote, entry) = (remote.clone(), entry.clone());
            async move {
                match piece {
                    Ok(piece) => Ok(piece),
                    Err(e) => Err(remote.broken(&entry.key, &entry, e, old).await),
                }
            }
        });
        Body::from_backend(len, pieces)
    }

    /// Why a body broke off: the store ends one whose value was written meanwhile.
    async fn broken(&self, key: &Key, entry: &Entry, e: Error, old: bool) -> Error {
        if old || e.kind() != ErrorKind::Unavailable || entry.etag.is_none() {
            return e;
        }
        match self.look(key, StatOptions::new()).await {
            Ok(now) if now.as_ref().and_then(|now| now.etag.as_ref()) != entry.etag.as_ref() => {
                Error::new(ErrorKind::Conflict, "the value was written while it was read; read it again").with_source(e)
            }
            _ => e,
        }
    }

    /// The entry of a value, without waiting for writes that were given up.
    pub(crate) async fn look(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let version = options.version.as_ref().map(|version| ("version", version.as_str()));
        let params: Vec<_> = version.into_iter().collect();
        let request = self.request(Method::GET, &format!("v1/entries/{}", keys::encode(key)), &params)?;
        let answer = self.http().ask(request).await?;
        if answer.status == StatusCode::NOT_FOUND && is_absent(&answer.headers) {
            return Ok(None);
        }
        let mut entry = answer.success()?.json::<EntryJson>()?.into_entry(Some(key))?;
        entry.metadata.get_or_insert_default();
        Ok(Some(entry))
    }

    /// What an answer that is no success says.
    pub(crate) async fn refused(&self, response: Response) -> Error {
        match self.http().collect(response).await {
            Ok(answer) => error::from_answer(answer.status, &answer.headers, &answer.body),
            Err(e) => e,
        }
    }
}

fn is_absent(map: &HeaderMap) -> bool {
    text(map, headers::ERROR) == Some(headers::ABSENT)
}

/// The range and the size that an answer says it has.
pub(crate) fn content_range(map: &HeaderMap) -> Result<(Option<Range<u64>>, u64)> {
    let said = text(map, CONTENT_RANGE.as_str()).and_then(range::parse_content);
    let (found, size) = said.ok_or_else(|| error::strange("it does not say which range it is"))?;
    Ok((found, size.ok_or_else(|| error::strange("it does not say how large the value is"))?))
}

/// How many bytes to leave out at the beginning, and how many to take.
pub(crate) fn cut(wanted: &Range<u64>, there: &Range<u64>) -> (u64, u64) {
    (wanted.start.saturating_sub(there.start), wanted.end - wanted.start)
}

/// The entry that the headers of an answer describe.
fn described(key: &Key, map: &HeaderMap, size: u64, whole: bool) -> Result<Entry> {
    if whole {
        let header = text(map, headers::ENTRY);
        let header = header.ok_or_else(|| error::strange("the header `storage-entry` is missing"))?;
        let mut entry = EntryJson::from_header(header)?.into_entry(Some(key))?;
        if entry.size != size {
            return Err(error::strange("it has not the size that its entry says"));
        }
        let metadata = text(map, headers::METADATA).map(parse_metadata_header).transpose()?;
        entry.metadata = Some(Arc::new(metadata.unwrap_or_else(Metadata::new)));
        return Ok(entry);
    }
    let mut entry = Entry::new(key.clone(), size);
    entry.etag = match text(map, ETAG.as_str()).map(Listed::parse) {
        Some(Ok(Listed::These(etags))) => etags.into_iter().next().filter(|(_, weak)| !weak).map(|(etag, _)| etag),
        _ => None::<Etag>,
    };
    entry.version = text(map, headers::VERSION).map(etag::parse_token).transpose()?.map(VersionId::from);
    Ok(entry)
}

/// So many bytes of the body of an answer behind the first few.
pub(crate) fn pieces(
    http: Http,
    response: Response,
    skip: u64,
    len: u64,
) -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    stream::unfold(Some((http, response, skip, len)), |state| async move {
        let (http, mut response, mut skip, left) = state?;
        loop {
            if left == 0 {
                return None;
            }
            match http.piece(&mut response).await {
                Ok(Some(mut piece)) => {
                    let before = skip.min(piece.len() as u64);
                    // Both fit into the piece.
                    let _ = piece.split_to(before as usize);
                    skip -= before;
                    piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    if !piece.is_empty() {
                        let left = left - piece.len() as u64;
                        return Some((Ok(piece), Some((http, response, skip, left))));
                    }
                }
                Ok(None) => return Some((Err(error::broke_off()), None)),
                Err(e) => return Some((Err(e), None)),
            }
        }
    })
}
