//! How values are encrypted on the way in and decrypted on the way out.

use std::{fmt, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use ring::rand::SystemRandom;
use storage_core::{
    BackendInfo, Body, ByteRange, ByteStream, Entry, Error, ErrorKind, GetOptions, Key, Metadata, Object, PutOptions,
    Result, StorageBackend,
};
use storage_layer::{Transform, Transformed};

use crate::{
    EncryptLayer,
    format::{CHUNK, Cipher, HEADER, Header, SEALED, TAG, chunks, context, plain_size, stored_size},
    keys::random_key,
    pieces::Pieces,
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

    /// A fresh data key, and the header that holds it.
    async fn seal_header(&self, key: &Key, metadata: Option<&Metadata>) -> Result<(Vec<u8>, Cipher)> {
        let (algorithm, data_key) = (self.settings.algorithm, random_key(&self.random)?);
        let context = context(algorithm, key, metadata);
        let header = Header { algorithm, wrapped: self.settings.keys.wrap(&data_key, &context).await? };
        Ok((header.encode()?, Cipher::new(algorithm, &data_key, key)?))
    }

    async fn open_header(&self, key: &Key, entry: &Entry, header: &[u8]) -> Result<Cipher> {
        let header = Header::decode(header).map_err(|e| e.with_key(key))?;
        let context = context(header.algorithm, key, entry.metadata.as_deref());
        let data_key = self.settings.keys.unwrap(&header.wrapped, &context).await;
        Cipher::new(header.algorithm, &data_key.map_err(|e| e.with_key(key))?, key)
    }

    /// One attempt at a range: the header first, then the chunks, of the same version of the value.
    async fn try_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: &GetOptions,
    ) -> Result<Option<Object>> {
        let head = options.clone().range(..HEADER).whole(true);
        let Some(head) = inner.get(key, head).await? else {
            return Ok(None);
        };
        let stored = head.entry;
        let header = head.body.bytes(HEADER).await?;
        let cipher = self.open_header(key, &stored, &header).await?;
        let size = plain_size(stored.size).ok_or_else(|| truncated(key))?;
        let range = range.resolve(size)?;
        let mut rest = options.clone();
        rest.if_none_match = None;
        if rest.version.is_none() {
            rest.if_match = stored.etag.clone();
        }
        let entry = self.entry(stored);
        if range.is_empty() {
            return Ok(Some(Object::new(entry, Bytes::new())));
        }
        let (first, last) = (range.start / CHUNK, (range.end - 1) / CHUNK);
        let sealed = HEADER + first * SEALED..HEADER + (last + 1) * SEALED;
        let Some(body) = inner.get(key, rest.range(sealed)).await? else {
            return Err(replaced(key));
        };
        let window =
            Window { next: first, end: chunks(size), skip: range.start - first * CHUNK, left: range.end - range.start };
        let plain = open_window(body.body.into_stream(), cipher, window);
        let len = range.end - range.start;
        Ok(Some(Object::new(entry, Body::stored(len, plain))))
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
        info.limits.value = info.limits.value.saturating_sub(overhead);
        info
    }

    async fn encode(&self, key: &Key, body: Body, options: PutOptions) -> Result<(Body, PutOptions)> {
        let (header, cipher) = self.seal_header(key, options.metadata.as_deref()).await?;
        let sealed = match body {
            Body::Bytes(plain) => seal_whole(header, &cipher, &plain)?.into(),
            Body::Stream(plain) => {
                let len = plain.declared_len().map(stored_size);
                let sealed = stream::once(async { Ok(header.into()) }).chain(seal_stream(plain.boxed(), cipher));
                match len {
                    Some(len) => Body::sized(len, sealed),
                    None => Body::stream(sealed),
                }
            }
        };
        Ok((sealed, options))
    }

    async fn decode(&self, key: &Key, stored: Object) -> Result<Object> {
        let size = plain_size(stored.entry.size).ok_or_else(|| truncated(key))?;
        let plain = match stored.body {
            Body::Bytes(sealed) => {
                let (header, sealed) = sealed.split_at_checked(HEADER as usize).ok_or_else(|| truncated(key))?;
                let cipher = self.open_header(key, &stored.entry, header).await?;
                open_whole(&cipher, sealed)?.into()
            }
            Body::Stream(sealed) => {
                let mut pieces = Pieces::new(sealed.boxed(), SEALED);
                let header = pieces.take(HEADER).await?;
                let cipher = self.open_header(key, &stored.entry, &header).await?;
                Body::stored(size, open_stream(pieces, cipher))
            }
        };
        Ok(Object::new(self.entry(stored.entry), plain))
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

    fn entry(&self, mut stored: Entry) -> Entry {
        if let Some(plain) = plain_size(stored.size) {
            stored.stored_size = Some(stored.stored_size.unwrap_or(stored.size));
            stored.size = plain;
        }
        stored
    }
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

fn seal_whole(header: Vec<u8>, cipher: &Cipher, plain: &[u8]) -> Result<Bytes> {
    let mut sealed = BytesMut::with_capacity(stored_size(plain.len() as u64) as usize);
    sealed.extend_from_slice(&header);
    let count = chunks(plain.len() as u64);
    for index in 0..count {
        let start = (index * CHUNK) as usize;
        let end = plain.len().min(start + CHUNK as usize);
        // What is split off shares the one allocation and is joined to it again without a copy.
        let mut chunk = sealed.split_off(sealed.len());
        chunk.extend_from_slice(&plain[start..end]);
        cipher.seal(&mut chunk, index, index + 1 == count)?;
        sealed.unsplit(chunk);
    }
    Ok(sealed.freeze())
}

fn open_whole(cipher: &Cipher, sealed: &[u8]) -> Result<Bytes> {
    let mut plain = Vec::with_capacity(sealed.len());
    let count = (sealed.len() as u64).div_ceil(SEALED).max(1);
    for index in 0..count {
        let start = (index * SEALED) as usize;
        let end = sealed.len().min(start + SEALED as usize);
        let at = plain.len();
        plain.extend_from_slice(&sealed[start..end]);
        let opened = cipher.open(&mut plain[at..], index, index + 1 == count)?;
        plain.truncate(at + opened);
    }
    Ok(plain.into())
}

fn seal_stream(plain: ByteStream, cipher: Cipher) -> ByteStream {
    let state = (Pieces::new(plain, CHUNK), Arc::new(cipher), 0);
    stream::try_unfold(Some(state), |state| async {
        let Some((mut pieces, cipher, index)) = state else {
            return Ok(None);
        };
        let (mut chunk, last) = pieces.next(TAG).await?;
        cipher.seal(&mut chunk, index, last)?;
        let next = (!last).then_some((pieces, cipher, index + 1));
        Ok(Some((chunk.freeze(), next)))
    })
    .boxed()
}

fn open_stream(pieces: Pieces, cipher: Cipher) -> ByteStream {
    stream::try_unfold(Some((pieces, cipher, 0)), |state| async {
        let Some((mut pieces, cipher, index)) = state else {
            return Ok(None);
        };
        let (mut chunk, last) = pieces.next(0).await?;
        let opened = cipher.open(&mut chunk, index, last)?;
        chunk.truncate(opened);
        let next = (!last).then_some((pieces, cipher, index + 1));
        Ok(Some((chunk.freeze(), next)))
    })
    .boxed()
}

/// The chunks of a value that hold a range of it.
struct Window {
    /// The index of the next chunk.
    next: u64,
    /// How many chunks the value has.
    end: u64,
    /// Plain bytes of the next chunk before the range.
    skip: u64,
    /// Plain bytes of the range still to come.
    left: u64,
}

impl Window {
    fn cut(&mut self, plain: Bytes) -> Bytes {
        let range: Range<u64> = self.skip..(self.skip + self.left).min(plain.len() as u64);
        self.next += 1;
        self.skip = 0;
        self.left -= range.end - range.start;
        plain.slice(range.start as usize..range.end as usize)
    }
}

fn open_window(sealed: ByteStream, cipher: Cipher, window: Window) -> ByteStream {
    let state = (Pieces::new(sealed, SEALED), cipher, window);
    stream::try_unfold(state, |(mut pieces, cipher, mut window)| async {
        if window.left == 0 {
            return Ok(None);
        }
        let (mut chunk, _) = pieces.next(0).await?;
        let last = window.next + 1 == window.end;
        let opened = cipher.open(&mut chunk, window.next, last)?;
        chunk.truncate(opened);
        let plain = window.cut(chunk.freeze());
        Ok(Some((plain, (pieces, cipher, window))))
    })
    .boxed()
}
