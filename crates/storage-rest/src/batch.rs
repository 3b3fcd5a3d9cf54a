//! Batches: as many items in one request as it takes.

use std::{collections::VecDeque, sync::Arc};

use bytes::{BufMut, BytesMut};
use reqwest::Method;
use storage_core::{
    BatchOptions, Body, Condition, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Metadata, Object,
    PutOptions, Result, defaults,
};
use storage_rest_wire::{
    BatchResults, ConditionJson, DeleteBatch, DeleteItem, EntryJson, Frame, Frames, GetBatch, GetItem, ItemResult,
    PutItem,
};

use crate::{connect::Remote, error, write::Write};

/// The most items of a request.
const ITEMS: usize = 1000;
/// The most bytes of values in a request.
const BYTES: u64 = 8 << 20;
/// Larger values go by themselves.
const LARGE: u64 = 1 << 20;

impl Remote {
    pub(crate) async fn read_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let is_plain = |(_, options): &(Key, GetOptions)| {
            options.range.is_none() && options.if_match.is_none() && options.if_none_match.is_none()
        };
        if !items.iter().all(is_plain) {
            return defaults::get_batch(self, items).await;
        }
        let mut found = Vec::with_capacity(items.len());
        for part in items.chunks(ITEMS) {
            found.extend(self.read_part(part).await?);
        }
        Ok(found)
    }

    async fn read_part(&self, items: &[(Key, GetOptions)]) -> Result<Vec<Result<Option<Object>>>> {
        let asked = items.iter().map(|(key, options)| GetItem {
            key: key.as_str().into(),
            version: options.version.as_ref().map(|version| version.as_str().into()),
        });
        let batch = GetBatch { items: asked.collect() };
        let mut request = self.request(Method::POST, "v1/batch/get", &[])?;
        crate::connect::set(&mut request, "content-type", "application/json")?;
        *request.body_mut() = Some(serde_json::to_vec(&batch).unwrap_or_default().into());
        let mut response = self.http().read(request).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let (mut frames, mut found) = (Frames::new(|frame: &Frame| frame.body.unwrap_or(0)), Vec::new());
        loop {
            while let Some((frame, value)) = frames.next_part()? {
                if let Some(all) = frame.end {
                    let whole = all == found.len() as u64 && found.len() == items.len();
                    return if whole { Ok(found) } else { Err(error::broke_off()) };
                }
                let (key, options) = items.get(found.len()).ok_or_else(|| error::strange("it has too many parts"))?;
                found.push(match frame {
                    Frame { error: Some(problem), .. } => Err((*problem).into()),
                    Frame { entry: Some(entry), body: Some(_), .. } => {
                        let mut entry = entry.into_entry(Some(key))?;
                        entry.metadata.get_or_insert_default();
                        Ok(Some(Object::new(entry, value)))
                    }
                    // Too large for a batch.
                    Frame { entry: Some(_), .. } => self.read(key, options.clone()).await,
                    _ => Ok(None),
                });
            }
            match self.http().piece(&mut response).await? {
                Some(piece) => frames.push(&piece),
                None => return Err(error::broke_off()),
            }
        }
    }

    pub(crate) async fn write_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let is_small = |(_, body, _): &(Key, Body, PutOptions)| body.buffer().is_some_and(|value| value.len() <= LARGE);
        let total: u64 = items.iter().filter_map(|(_, body, _)| body.len()).sum();
        let fits = items.len() <= ITEMS && total <= BYTES;
        if !items.iter().all(is_small) || (options.atomic && !fits) {
            return defaults::put_batch(self, items, options).await;
        }
        let (mut written, mut left) = (Vec::with_capacity(items.len()), VecDeque::from(items));
        while !left.is_empty() {
            let mut request = Request::default();
            while let Some((key, body, put)) = left.pop_front() {
                if request.is_full(body.len().unwrap_or(0)) {
                    left.push_front((key, body, put));
                    break;
                }
                request.add(key, body, put)?;
            }
            written.extend(self.write_part(request, options.atomic).await?);
        }
        Ok(written)
    }

    async fn write_part(&self, request: Request, atomic: bool) -> Result<Vec<Result<Entry>>> {
        let write = Write::new(Method::POST, "v1/batch/put")
            .header("content-type", "application/vnd.storage.frames")
            .body(request.frames.freeze().into());
        let write = if atomic { write.param("atomic", "true") } else { write };
        self.tasks.settled_keys(&request.keys).await?;
        let results = self.results(&request.keys, write).await?;
        let items = request.keys.iter().zip(request.metadata).zip(results);
        Ok(items.map(|((key, metadata), result)| written(key, metadata, result)).collect())
    }

    pub(crate) async fn remove_batch(
        &self,
        items: Vec<(Key, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        if options.atomic && items.len() > ITEMS {
            return defaults::delete_batch(self, items, options).await;
        }
        let mut removed = Vec::with_capacity(items.len());
        for part in items.chunks(ITEMS) {
            let asked = part.iter().map(|(key, options)| {
                let if_match = match &options.condition {
                    None => None,
                    Some(Condition::IfMatch(etag)) => Some(etag.as_str().to_owned()),
                    Some(_) => return Err(Error::unsupported("this condition on deletes")),
                };
                let version = options.version.as_ref().map(|version| version.as_str().into());
                Ok(DeleteItem { key: key.as_str().into(), version, if_match })
            });
            let batch = DeleteBatch { atomic: options.atomic, items: asked.collect::<Result<_>>()? };
            let keys: Vec<Key> = part.iter().map(|(key, _)| key.clone()).collect();
            self.tasks.settled_keys(&keys).await?;
            let results = self.results(&keys, Write::json("v1/batch/delete", &batch)?).await?;
            removed.extend(results.into_iter().map(|result| match result.error {
                Some(problem) => Err((*problem).into()),
                None => Ok(()),
            }));
        }
        Ok(removed)
    }

    /// One result for each key.
    async fn results(&self, keys: &[Key], write: Write) -> Result<Vec<ItemResult>> {
        let answer = self.write(keys.to_vec(), write).await?;
        let BatchResults { results } = answer.json().map_err(Error::ambiguous)?;
        match results.len() == keys.len() {
            true => Ok(results),
            false => Err(error::strange("it has not one result for each item").ambiguous()),
        }
    }
}

/// A batch of values on its way.
#[derive(Default)]
struct Request {
    keys: Vec<Key>,
    metadata: Vec<Option<Arc<Metadata>>>,
    frames: BytesMut,
}

impl Request {
    fn is_full(&self, more: u64) -> bool {
        !self.keys.is_empty() && (self.keys.len() >= ITEMS || self.frames.len() as u64 + more > BYTES)
    }

    fn add(&mut self, key: Key, body: Body, options: PutOptions) -> Result<()> {
        let value = body.into_buffer().map_err(|_| Error::new(ErrorKind::Other, "the body is no buffer"))?;
        let PutOptions { metadata, condition, source, .. } = options;
        let item = PutItem {
            key: key.as_str().into(),
            body: value.len(),
            metadata: metadata.as_deref().cloned(),
            condition: condition.as_ref().map(ConditionJson::try_from).transpose()?,
            source,
        };
        self.frames.extend_from_slice(&serde_json::to_vec(&item).unwrap_or_default());
        self.frames.put_u8(b'\n');
        value.into_iter().for_each(|piece| self.frames.extend_from_slice(&piece));
        self.keys.push(key);
        self.metadata.push(metadata);
        Ok(())
    }
}

fn written(key: &Key, metadata: Option<Arc<Metadata>>, result: ItemResult) -> Result<Entry> {
    match result {
        ItemResult { error: Some(problem), .. } => Err((*problem).into()),
        ItemResult { entry: Some(entry), .. } => entry_of(entry, key, metadata),
        _ => Err(error::strange("an item has neither an entry nor an error").ambiguous()),
    }
}

/// The entry of what was written, with the metadata that the writer knows.
pub(crate) fn entry_of(entry: EntryJson, key: &Key, metadata: Option<Arc<Metadata>>) -> Result<Entry> {
    let mut entry = entry.into_entry(Some(key))?;
    entry.metadata = Some(metadata.unwrap_or_default());
    Ok(entry)
}
