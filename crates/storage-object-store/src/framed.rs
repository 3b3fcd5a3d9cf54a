//! Reading from a store without attributes: a header before the value holds the metadata and an etag of our own.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{GetOptions as Get, ObjectMeta};
use storage_core::{Entry, Etag, GetOptions, Key, Metadata, Object, Result};

use crate::{backend::Inner, error, meta, source::Source};

impl Inner {
    pub(crate) async fn read_framed(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let place = self.names.place(key);
        let header = options.range.map(|_| 0..meta::HEADER);
        let Some(result) = self.get(&place, Get::new().with_range(header)).await? else {
            return options.if_match.map_or(Ok(None), |etag| Err(error::mismatch(&etag)));
        };
        let about = result.meta.clone();
        let mut source = Source::from(result);
        let (etag, metadata) = meta::from_header(&source.start(meta::HEADER).await?)?;
        match (options.if_match, options.if_none_match) {
            (Some(wanted), _) if wanted != etag => return Err(error::mismatch(&wanted)),
            (_, Some(known)) if known == etag => return Err(error::not_modified()),
            _ => {}
        }
        let entry = self.framed_entry(key, &about, etag, metadata);
        let range = match options.range {
            Some(range) => range.resolve(entry.size)?,
            None => 0..entry.size,
        };
        if range.is_empty() {
            return Ok(Some(Object::new(entry, Bytes::new())));
        }
        let stored = range.start + meta::HEADER..range.end + meta::HEADER;
        if options.range.is_some() && !source.is_file() {
            // That request was for the header alone.
            source = Source::from(self.get_same(&place, &about, stored.clone(), None).await?);
        }
        let body = source.body(stored, options.prefer_buffered).await?;
        Ok(Some(Object::new(entry, body)))
    }

    pub(crate) async fn describe_framed(&self, key: &Key) -> Result<Option<Entry>> {
        let header = Get::new().with_range(Some(0..meta::HEADER));
        let Some(result) = self.get(&self.names.place(key), header).await? else {
            return Ok(None);
        };
        let about = result.meta.clone();
        let header = Source::from(result).start(meta::HEADER).await?;
        let (etag, metadata) = meta::from_header(&header)?;
        Ok(Some(self.framed_entry(key, &about, etag, metadata)))
    }

    /// The store's own etag says nothing about ours, which is in the header, so a listing leaves it out. An object that is shorter than
    /// a header is damaged.
    pub(crate) fn listed_framed(&self, key: Key, about: &ObjectMeta) -> Entry {
        let size = about.size.checked_sub(meta::HEADER);
        let mut entry = Entry::new(key, size.unwrap_or(0));
        entry.stored_size = Some(about.size);
        entry.modified = self.modified(about);
        if size.is_some() { entry } else { entry.into_damaged(meta::foreign()) }
    }

    fn framed_entry(&self, key: &Key, about: &ObjectMeta, etag: Etag, metadata: Arc<Metadata>) -> Entry {
        // Whoever has read the header knows that the object is as long.
        let size = about.size.saturating_sub(meta::HEADER);
        let mut entry = Entry::new(key.clone(), size);
        entry.stored_size = Some(about.size);
        entry.modified = self.modified(about);
        entry.etag = Some(etag);
        entry.metadata = Some(metadata);
        entry
    }
}
