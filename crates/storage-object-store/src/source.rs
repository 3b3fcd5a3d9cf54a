//! The bytes of one version of an object: an open file, or the answer to one request.

use std::{fs::File, ops::Range, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetResult, GetResultPayload, ObjectMeta};
use storage_core::{Body, ByteStream, Result};

use crate::error;

/// How much of a file is read at once. The stream of `object_store` itself hops to another thread every 8 KiB.
const CHUNK: u64 = 512 << 10;

pub(crate) enum Source {
    /// Can be read at any position.
    File(Arc<OpenFile>),
    /// Can be read once, in order.
    Stream(ByteStream),
}

pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    about: ObjectMeta,
}

impl From<GetResult> for Source {
    fn from(result: GetResult) -> Self {
        match result.payload {
            GetResultPayload::File(file, path) => Self::File(Arc::new(OpenFile { file, path, about: result.meta })),
            GetResultPayload::Stream(pieces) => Self::Stream(pieces.map_err(error::read).boxed()),
        }
    }
}

impl Source {
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// The first `n` bytes, or all of a shorter object. A stream goes on behind them.
    pub(crate) async fn start(&mut self, n: u64) -> Result<Bytes> {
        let pieces = match self {
            Self::File(file) => return file.read(0..n.min(file.about.size)).await,
            Self::Stream(pieces) => pieces,
        };
        let mut start = BytesMut::new();
        while (start.len() as u64) < n {
            match pieces.try_next().await? {
                Some(piece) => start.extend_from_slice(&piece),
                None => break,
            }
        }
        let rest = start.split_off(start.len().min(n as usize)).freeze();
        let behind = std::mem::replace(pieces, stream::empty().boxed());
        *pieces = stream::iter([Ok(rest)]).chain(behind).boxed();
        Ok(start.freeze())
    }

    /// The positions of a file, or what is left of a stream, which is as long as these positions.
    pub(crate) async fn body(self, range: Range<u64>, whole: bool) -> Result<Body> {
        let len = range.end - range.start;
        let pieces = match self {
            Self::Stream(pieces) => pieces,
            Self::File(file) => {
                let chunk = if whole { len.max(1) } else { CHUNK };
                stream::try_unfold((file, range), move |(file, left)| async move {
                    if left.is_empty() {
                        return Ok(None);
                    }
                    let end = left.end.min(left.start + chunk);
                    let piece = file.read(left.start..end).await?;
                    Ok(Some((piece, (file, end..left.end))))
                })
                .boxed()
            }
        };
        let body = Body::from_backend(len, pieces);
        if whole {
            return body.bytes(u64::MAX).await.map(Body::from);
        }
        Ok(body)
    }
}

impl OpenFile {
    /// Exactly these positions; it is an error if the file has become shorter.
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let file = self.file.try_clone().map_err(error::directory)?;
        let read = GetResult {
            payload: GetResultPayload::File(file, self.path.clone()),
            meta: self.about.clone(),
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        };
        read.bytes().await.map_err(error::read)
    }
}
