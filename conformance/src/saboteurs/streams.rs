//! Streams that lose, mix or hold on to something.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BackendInfo, Body, Bytes, Condition, Entry, Error, ErrorKind, GetOptions, Key, Object, PutOptions, Result,
    StatOptions, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, whole},
};

table! {
    last_part_is_lost = LastPartIsLost => [
        "entries/every_write_returns_its_entry",
        "errors/value_too_large",
        "sizes/of_pieces",
        "sizes/of_ranges",
        "sizes/of_values",
        "stream/chunked_equals_whole",
        "stream/conditional",
        "stream/declared_length",
    ];
    empty_sized_body_is_refused = EmptySizedBody => ["stream/declared_length", "stream/wrong_length_stores_nothing"];
    empty_piece_is_the_end = EmptyPieceIsTheEnd => ["stream/empty_pieces"];
    last_piece_is_not_delivered = LastPieceIsNotDelivered => ["stream/one_version_per_stream", "stream/pipe", "stream/read_in_pieces"];
    declares_streaming_only = DeclaresStreaming => ["stream/pieces_are_bounded"];
    stores_what_came = StoresWhatCame => ["stream/body_error_stores_nothing", "stream/wrong_length_stores_nothing"];
    swallows_body_errors = SwallowsBodyErrors => [
        "errors/taxonomy",
        "stream/body_error_stores_nothing",
        "stream/wrong_length_stores_nothing",
    ];
    pieces_of_any_version = PiecesOfAnyVersion => ["stream/one_version_per_stream"];
    dropped_readers_keep_their_place = KeepsPlaces::default() => ["cancellation/dropped_reads", "stream/consumer_drop_releases"];
    readers_lock_writers_out = ReadersLock::default() => ["range/in_parallel", "stream/one_version_per_stream", "stream/pipe"];
    condition_before_the_body = ConditionBeforeTheBody => ["stream/conditional"];
    takes_more_than_its_limit = TakesMore => ["errors/value_too_large"];
}

/// Not a divisor of the sizes that the checks use.
const PART: usize = 250_007;

#[derive(Debug)]
struct LastPartIsLost;

#[async_trait]
impl Fault for LastPartIsLost {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let streamed = !body.is_in_memory();
        let mut bytes = whole(body).await?;
        if streamed && bytes.len() > PART {
            bytes.truncate(bytes.len() / PART * PART);
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

#[derive(Debug)]
struct EmptySizedBody;

#[async_trait]
impl Fault for EmptySizedBody {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if !body.is_in_memory() && body.is_empty() {
            return Err(Error::new(ErrorKind::Other, "an upload needs at least one part"));
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct EmptyPieceIsTheEnd;

#[async_trait]
impl Fault for EmptyPieceIsTheEnd {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let pieces = body.into_stream();
        let full = |piece: &Result<Bytes>| std::future::ready(!piece.as_ref().is_ok_and(Bytes::is_empty));
        s.inner.put(key, Body::stream(pieces.take_while(full)), options).await
    }
}

#[derive(Debug)]
struct LastPieceIsNotDelivered;

#[async_trait]
impl Fault for LastPieceIsNotDelivered {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if options.prefer_buffered || options.range.is_some() {
            return s.inner.get(key, options).await;
        }
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        let mut bytes = whole(object.body).await?;
        if bytes.len() > PART {
            bytes.truncate(bytes.len() / PART * PART);
        }
        Ok(Some(Object::new(object.entry, Body::stream(stream::iter([Ok(bytes)])))))
    }
}

#[derive(Debug)]
struct DeclaresStreaming;

#[async_trait]
impl Fault for DeclaresStreaming {
    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities.streaming = true;
    }
}

/// A body that breaks off is stored as far as it came, and the error is passed on.
#[derive(Debug)]
struct StoresWhatCame;

#[async_trait]
impl Fault for StoresWhatCame {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let (bytes, failure) = until_failure(body).await;
        let written = s.inner.put(key, bytes.into(), options).await?;
        failure.map_or(Ok(written), Err)
    }
}

#[derive(Debug)]
struct SwallowsBodyErrors;

#[async_trait]
impl Fault for SwallowsBodyErrors {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let (bytes, failure) = until_failure(body).await;
        let size = bytes.len() as u64;
        match failure {
            None => s.inner.put(key, bytes.into(), options).await,
            Some(_) => Ok(Entry::new(key.clone(), size)),
        }
    }
}

async fn until_failure(body: Body) -> (Vec<u8>, Option<Error>) {
    let (mut bytes, mut pieces) = (Vec::new(), body.into_stream());
    loop {
        match pieces.next().await {
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(e)) => return (bytes, Some(e)),
            None => return (bytes, None),
        }
    }
}

/// Each piece is read when it is asked for, from whatever is stored then.
#[derive(Debug)]
struct PiecesOfAnyVersion;

#[async_trait]
impl Fault for PiecesOfAnyVersion {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let plain = options == GetOptions::new();
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        if !plain || object.entry.size <= PART as u64 {
            return Ok(Some(object));
        }
        let (inner, key, size) = (s.inner.clone(), key.clone(), object.entry.size);
        let pieces = stream::try_unfold(0, move |from| {
            let (inner, key) = (inner.clone(), key.clone());
            async move {
                if from >= size {
                    return Ok(None);
                }
                let to = (from + PART as u64).min(size);
                let part = inner.get(&key, GetOptions::new().range(from..to)).await;
                let gone = || Error::new(ErrorKind::Conflict, "the value was deleted while it was read");
                let part = part.map_err(|_| gone())?.ok_or_else(gone)?;
                Ok(Some((whole(part.body).await?, to)))
            }
        });
        Ok(Some(Object::new(object.entry, Body::with_len(size, pieces))))
    }
}

/// A read takes one of four places and gives it back at the end of its stream, if it comes to it.
#[derive(Debug, Default)]
struct KeepsPlaces {
    taken: Arc<AtomicUsize>,
}

#[async_trait]
impl Fault for KeepsPlaces {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let large = |object: &Object| object.entry.size > PART as u64;
        let reads_whole = options.prefer_buffered;
        let Some(mut object) = s.inner.get(key, options).await? else { return Ok(None) };
        if reads_whole || !large(&object) {
            return Ok(Some(object));
        }
        if self.taken.fetch_add(1, Ordering::SeqCst) >= 16 {
            return Err(Error::new(ErrorKind::RateLimited, "all connections are in use"));
        }
        let taken = self.taken.clone();
        let bytes = whole(object.body).await?;
        let half = bytes.len() / 2;
        let end = stream::once(async move {
            taken.fetch_sub(1, Ordering::SeqCst);
            Ok(Bytes::new())
        });
        let pieces = [bytes.slice(..half), bytes.slice(half..)].map(Ok);
        object.body = Body::stream(stream::iter(pieces).chain(end));
        Ok(Some(object))
    }
}

/// While a stream of a value is open, nothing can be written.
#[derive(Debug, Default)]
struct ReadersLock {
    readers: Arc<()>,
}

#[async_trait]
impl Fault for ReadersLock {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let reads_whole = options.prefer_buffered;
        let Some(mut object) = s.inner.get(key, options).await? else { return Ok(None) };
        if !reads_whole && object.entry.size > PART as u64 {
            let reader = self.readers.clone();
            let pieces = object.body.into_stream();
            object.body = Body::stream(pieces.inspect_ok(move |_| drop(Arc::clone(&reader))));
        }
        Ok(Some(object))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if Arc::strong_count(&self.readers) > 1 {
            return Err(Error::new(ErrorKind::Conflict, "the store is locked by a reader"));
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct ConditionBeforeTheBody;

#[async_trait]
impl Fault for ConditionBeforeTheBody {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if let (false, Some(Condition::IfMatch(etag))) = (body.is_in_memory(), &options.condition) {
            let current = s.inner.stat(key, StatOptions::new()).await?.and_then(|entry| entry.etag);
            if current.as_ref() != Some(etag) {
                return Err(Error::new(ErrorKind::PreconditionFailed, "the value has another etag"));
            }
            options.condition = None;
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct TakesMore;

#[async_trait]
impl Fault for TakesMore {
    fn declare(&self, info: &mut BackendInfo) {
        info.limits.value -= 1000;
    }
}
