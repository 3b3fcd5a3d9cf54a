//! How values are encrypted on the way in and decrypted on the way out.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ring::rand::SystemRandom;
use storage_config::WrappedKey;
use storage_core::{
    BackendInfo, Body, ByteRange, Comparison, Entry, Error, ErrorKind, FieldValue, Filter, GetOptions, Key, Metadata,
    Object, PutOptions, Query, Result, StorageBackend,
};
use storage_layer::{Transform, Transformed, is_about_metadata_alone};

use crate::{
    Algorithm, EncryptLayer,
    format::{
        CHUNK, Cipher, HEADER, Header, MAX_PLAIN, MetadataForm, SEALED, TAG, chunks, plain_context, plain_size,
        sealed_context, stored_size,
    },
    metadata::{self, Sealed},
    pieces::Pieces,
    seal::{Window, open_stream, open_whole, open_window, seal_stream, seal_whole, wrong_size},
    wrap::random_key,
};

/// A backend with the encryption layer around it.
pub type Encrypt<S> = Transformed<S, EncryptTransform>;

/// How often a range is begun again when the value is replaced between the reads of its header and its chunks.
const ATTEMPTS: usize = 4;

/// The encryption layer's functions.
pub struct EncryptTransform {
    settings: EncryptLayer,
    random: SystemRandom,
}

impl EncryptTransform {
    pub(crate) fn new(settings: EncryptLayer) -> Self {
        Self { settings, random: SystemRandom::new() }
    }

    /// Metadata in the clear is believed where it is written so, or where a store is being migrated.
    fn takes_plain_metadata(&self) -> bool {
        !self.settings.encrypt_metadata || self.settings.allow_plain_metadata
    }

    /// A fresh data key, the header that holds it, and the metadata to be stored beside.
    async fn seal(
        &self,
        key: &Key,
        metadata: Option<Arc<Metadata>>,
    ) -> Result<(Vec<u8>, Cipher, Option<Arc<Metadata>>)> {
        let (algorithm, keys, data_key) = (self.settings.algorithm, &self.settings.keys, random_key(&self.random)?);
        let cipher = Cipher::new(algorithm, &data_key, key)?;
        let (form, wrapped, metadata) = if self.settings.encrypt_metadata {
            let wrapped = keys.wrap(&data_key, &sealed_context(algorithm, key)).await?;
            let sealed = metadata::seal(metadata.as_deref(), algorithm, &wrapped, &cipher)?;
            (MetadataForm::Sealed, wrapped, Some(sealed))
        } else {
            let metadata = metadata::attach(metadata);
            let context = plain_context(algorithm, key, metadata.as_deref());
            (MetadataForm::Plain, keys.wrap(&data_key, &context).await?, metadata)
        };
        let header = Header { algorithm, metadata: form, wrapped }.encode()?;
        Ok((header, cipher, metadata))
    }

    /// The cipher of a value, and its entry with the plain metadata.
    async fn open(&self, key: &Key, mut stored: Entry, header: &[u8]) -> Result<(Cipher, Entry)> {
        let header = Header::decode(header)?;
        let metadata = stored.metadata.take().unwrap_or_default();
        let (cipher, metadata) = match header.metadata {
            MetadataForm::Plain => {
                if !self.takes_plain_metadata() {
                    return Err(metadata::in_the_clear());
                }
                let context = plain_context(header.algorithm, key, Some(&metadata));
                let cipher = self.cipher(header.algorithm, key, &header.wrapped, &context).await?;
                (cipher, metadata::detach(metadata))
            }
            MetadataForm::Sealed => {
                let sealed = Sealed::parse(&metadata)?.ok_or_else(metadata::changed)?;
                // One that was written with another value of this key has another data key.
                if sealed.algorithm != header.algorithm || sealed.wrapped != header.wrapped {
                    return Err(metadata::changed());
                }
                let context = sealed_context(header.algorithm, key);
                let cipher = self.cipher(header.algorithm, key, &header.wrapped, &context).await?;
                let metadata = sealed.open(&cipher)?;
                (cipher, metadata)
            }
        };
        stored.metadata = Some(metadata);
        Ok((cipher, plain_sizes(stored)))
    }

    async fn cipher(&self, algorithm: Algorithm, key: &Key, wrapped: &WrappedKey, context: &[u8]) -> Result<Cipher> {
        let data_key = self.settings.keys.unwrap(wrapped, context).await?;
        Cipher::new(algorithm, &data_key, key)
    }

    /// The plain metadata of an entry whose value was not read; `None` for what is in the clear.
    async fn open_metadata(&self, key: &Key, stored: &Metadata) -> Result<Option<Arc<Metadata>>> {
        let Some(sealed) = Sealed::parse(stored)? else {
            return Ok(None);
        };
        let context = sealed_context(sealed.algorithm, key);
        let cipher = self.cipher(sealed.algorithm, key, &sealed.wrapped, &context).await?;
        sealed.open(&cipher).map(Some)
    }

    /// The plain entry of a value whose metadata is in the clear where it should not be: the header of the value, which nobody
    /// makes without the keys, says whether it was written so. `None` when it was deleted meanwhile.
    async fn migrated<S: StorageBackend + ?Sized>(&self, inner: &S, stored: &Entry) -> Result<Option<Entry>> {
        let mut head = GetOptions::new().range(..HEADER).prefer_buffered(true);
        head.version = stored.version.clone().filter(|_| inner.info().capabilities.versioning);
        // What comes is of one version, its entry and metadata included; a newer one is as good.
        let Some(head) = inner.get(&stored.key, head).await? else {
            return Ok(None);
        };
        let header = head.body.bytes(HEADER).await?;
        self.open(&stored.key, head.entry, &header).await.map(|(_, entry)| Some(entry))
    }

    /// One attempt at a range: the header first, then the chunks, of the same version of the value. Where the range begins in
    /// the first chunk, one read has both.
    async fn try_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: &GetOptions,
    ) -> Result<Option<Object>> {
        let at_once = match range {
            ByteRange::Bounded(start, end) if start < CHUNK => Some(end),
            ByteRange::From(start) if start < CHUNK => Some(MAX_PLAIN),
            _ => None,
        };
        let chunks_at_once = at_once.map_or(0, |end| chunks(end.min(MAX_PLAIN)));
        let head = options
            .clone()
            .range(..HEADER + chunks_at_once * SEALED)
            .prefer_buffered(options.prefer_buffered || at_once.is_none());
        let Some(head) = inner.get(key, head).await? else {
            return Ok(None);
        };
        let size = plain_size(head.entry.size).ok_or_else(|| truncated(key))?;
        let mut pieces = Pieces::new(head.body.into_stream(), SEALED);
        let header = pieces.take(HEADER).await?;
        let (cipher, entry) = self.open(key, head.entry, &header).await.map_err(|e| e.with_key(key))?;
        let range = range.resolve(size)?;
        if range.is_empty() {
            return Ok(Some(Object::new(entry, Bytes::new())));
        }
        let (first, last) = (range.start / CHUNK, (range.end - 1) / CHUNK);
        if at_once.is_none() {
            let mut rest = options.clone();
            rest.if_none_match = None;
            if rest.version.is_none() {
                rest.if_match = entry.etag.clone();
            }
            let sealed = HEADER + first * SEALED..HEADER + (last + 1) * SEALED;
            let chunks = inner.get(key, rest.range(sealed)).await.map_err(|e| match e.kind() {
                // The same version of the value ends before the chunks that its size promised.
                ErrorKind::RangeNotSatisfiable => wrong_size(key),
                _ => e,
            })?;
            let chunks = chunks.ok_or_else(|| replaced(key))?;
            pieces = Pieces::new(chunks.body.into_stream(), SEALED);
        }
        let len = range.end - range.start;
        let window = Window { next: first, size, skip: range.start - first * CHUNK, left: len };
        Ok(Some(Object::new(entry, Body::from_backend(len, open_window(pieces, cipher, window)))))
    }
}

impl fmt::Debug for EncryptTransform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.fmt(f)
    }
}

impl Transform for EncryptTransform {
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        let mut info = inner.clone();
        info.capabilities.encryption = true;
        // Queries are answered above the encryption, by a scan.
        info.capabilities.queryable = false;
        let overhead = HEADER + chunks(info.limits.value) * TAG;
        info.limits.value = info.limits.value.saturating_sub(overhead).min(MAX_PLAIN);
        info.limits.metadata = metadata::limit(info.limits.metadata, self.settings.encrypt_metadata);
        info
    }

    async fn encode(&self, key: &Key, body: Body, mut options: PutOptions) -> Result<(Body, PutOptions)> {
        let (header, cipher, metadata) = self.seal(key, options.metadata.take()).await?;
        options.metadata = metadata;
        let sealed = match body.into_buffer() {
            Ok(plain) => seal_whole(&header, &cipher, &plain.into_bytes()?)?.into(),
            Err(plain) => {
                let len = plain.declared_len().map(stored_size);
                let sealed = stream::once(async { Ok(header.into()) }).chain(seal_stream(plain.boxed(), cipher));
                match len {
                    Some(len) => Body::with_len(len, sealed),
                    None => Body::stream(sealed),
                }
            }
        };
        Ok((sealed, options))
    }

    async fn decode(&self, key: &Key, stored: Object) -> Result<Object> {
        let size = plain_size(stored.entry.size).ok_or_else(|| truncated(key))?;
        match stored.body.into_buffer() {
            Ok(sealed) => {
                let sealed = sealed.into_bytes()?;
                let header = sealed.get(..HEADER as usize).ok_or_else(|| truncated(key))?;
                let (cipher, entry) = self.open(key, stored.entry, header).await.map_err(|e| e.with_key(key))?;
                Ok(Object::new(entry, open_whole(&cipher, sealed)?))
            }
            Err(sealed) => {
                let mut pieces = Pieces::new(sealed.boxed(), SEALED);
                let header = pieces.take(HEADER).await?;
                let (cipher, entry) = self.open(key, stored.entry, &header).await.map_err(|e| e.with_key(key))?;
                Ok(Object::new(entry, Body::from_backend(size, open_stream(pieces, cipher))))
            }
        }
    }

    async fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        let mut attempt = 1;
        loop {
            match self.try_range(inner, key, range, &options).await {
                Err(e) if e.kind() == ErrorKind::PreconditionFailed && options.if_match.is_none() => {
                    if attempt == ATTEMPTS {
                        return Err(replaced(key));
                    }
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    async fn entry<S: StorageBackend + ?Sized>(&self, inner: &S, mut stored: Entry) -> Result<Option<Entry>> {
        if plain_size(stored.size).is_none() {
            return Err(truncated(&stored.key));
        }
        if let Some(metadata) = stored.metadata.take() {
            let plain = self.open_metadata(&stored.key, &metadata).await;
            stored.metadata = match plain.map_err(|e| e.with_key(&stored.key))? {
                Some(plain) => Some(plain),
                None if !self.settings.encrypt_metadata => Some(metadata::detach(metadata)),
                None if self.settings.allow_plain_metadata => {
                    return self.migrated(inner, &stored).await.map_err(|e| e.with_key(&stored.key));
                }
                None => return Err(metadata::in_the_clear().with_key(&stored.key)),
            };
        }
        Ok(Some(plain_sizes(stored)))
    }

    async fn queries_below<S: StorageBackend + ?Sized>(&self, inner: &S, query: &Query) -> Result<bool> {
        let able = !self.settings.encrypt_metadata && inner.info().capabilities.queryable;
        if !able || !is_about_metadata_alone(query, metadata::is_ours) {
            return Ok(false);
        }
        // Values that were written with encrypted metadata are found by it above this layer alone.
        let sealed = Filter::Field {
            name: metadata::FIELD.to_owned(),
            comparison: Comparison::NotEqual,
            value: FieldValue::Null,
        };
        let mut sealed = inner.query(Query::new().prefix(query.prefix.as_str()).filter(sealed).limit(1)).await?;
        Ok(sealed.next().await.transpose()?.is_none())
    }
}

fn plain_sizes(mut stored: Entry) -> Entry {
    if let Some(plain) = plain_size(stored.size) {
        stored.stored_size = Some(stored.stored_size.unwrap_or(stored.size));
        stored.size = plain;
    }
    stored
}

fn truncated(key: &Key) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "the stored value has a size that no encrypted value has: it was written without this layer, or truncated",
    )
    .with_key(key)
}

fn replaced(key: &Key) -> Error {
    Error::new(ErrorKind::Conflict, "the value was replaced while it was read; read it again").with_key(key)
}
