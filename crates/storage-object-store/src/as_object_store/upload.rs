//! An upload in parts: one streamed put that ends when the upload is completed.
//!
//! A task drives the put as long as parts may come, which changes nothing. The end is sent by whoever completes the upload, and its
//! future drives the put from there: dropped, it drops the put.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, select},
    stream,
};
use object_store::{MultipartUpload, PutPayload, PutResult, Result as NativeResult, UploadPart, path::Path};
use storage_core::{Body, Bytes, Entry, Error, ErrorKind, PutOptions, Result, Storage};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    error::{failed, not_supported},
    put_result,
};

/// What the put is told. Without `End` it fails, and stores nothing.
enum Message {
    Part(PutPayload, oneshot::Sender<()>),
    End,
}

type Messages = mpsc::UnboundedReceiver<Message>;

type Put = BoxFuture<'static, Ended>;
type Ended = Result<Entry>;

pub(super) struct Upload {
    location: Path,
    /// Parts wait here in the order of the calls; their callers know when they have been taken.
    parts: Option<mpsc::UnboundedSender<Message>>,
    /// The put, or how it has ended already. The task waits for `asked`.
    put: Option<JoinHandle<Either<Ended, Put>>>,
    asked: Option<oneshot::Sender<()>>,
    /// Why the put has failed, for the parts that it did not take.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Upload {
    pub(super) fn start(storage: Storage, location: Path, options: PutOptions) -> Self {
        let (parts, messages) = mpsc::unbounded_channel();
        let (asked, ask) = oneshot::channel();
        let failure = Arc::new(Mutex::new(None));
        let (key, why) = (location.to_string(), failure.clone());
        let put = async move {
            let written = storage.put_with(key, Body::stream(pieces(messages)), options).await;
            *why.lock().unwrap_or_else(PoisonError::into_inner) = written.as_ref().err().cloned();
            written
        };
        let put = tokio::spawn(async move {
            match select(put.boxed(), ask).await {
                Either::Left((ended, _)) => Either::Left(ended),
                Either::Right((_, put)) => Either::Right(put),
            }
        });
        Self { location, parts: Some(parts), put: Some(put), asked: Some(asked), failure }
    }
}

/// The bytes of the parts. A part counts as taken when the next piece is asked for.
fn pieces(messages: Messages) -> impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static {
    let parts =
        stream::unfold((messages, None), |(mut messages, taken): (Messages, Option<oneshot::Sender<()>>)| async {
            if let Some(taken) = taken {
                // Whoever waited for it may be gone.
                let _ = taken.send(());
            }
            match messages.recv().await {
                Some(Message::Part(part, taken)) => Some((Ok(part), (messages, Some(taken)))),
                Some(Message::End) => None,
                None => {
                    let dropped = Error::new(ErrorKind::InvalidInput, "the upload was aborted or dropped");
                    Some((Err(dropped), (messages, None)))
                }
            }
        });
    parts.flat_map(|part| match part {
        Ok(part) => stream::iter(part.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(e) => stream::iter(vec![Err(e)]),
    })
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (taken, wait) = oneshot::channel();
        if let Some(parts) = &self.parts {
            // If the put has failed, `wait` is told by `taken` being dropped.
            let _ = parts.send(Message::Part(data, taken));
        }
        let (failure, location) = (self.failure.clone(), self.location.clone());
        async move {
            if wait.await.is_ok() {
                return Ok(());
            }
            let why = failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(match why {
                Some(why) => failed(&location, why),
                None => not_supported("the upload has ended"),
            })
        }
        .boxed()
    }

    async fn complete(&mut self) -> NativeResult<PutResult> {
        let ended = || not_supported("the upload has ended");
        let (put, parts) = (self.put.take().ok_or_else(ended)?, self.parts.take());
        // The task sees it when this is dropped.
        self.asked = None;
        let written = match put.await? {
            Either::Left(ended) => ended,
            Either::Right(put) => {
                if let Some(parts) = parts {
                    // If the put has failed, its outcome says so.
                    let _ = parts.send(Message::End);
                }
                put.await
            }
        };
        written.map(put_result).map_err(|e| failed(&self.location, e))
    }

    async fn abort(&mut self) -> NativeResult<()> {
        self.parts = None;
        let put = self.put.take().ok_or_else(|| not_supported("the upload has ended"))?;
        match put.await? {
            // It fails because its body does, and has cleaned up when it is over.
            Either::Left(Err(_)) | Either::Right(_) => Ok(()),
            Either::Left(Ok(_)) => {
                Err(failed(&self.location, Error::new(ErrorKind::Other, "the upload ended before it was aborted")))
            }
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("location", &self.location).finish_non_exhaustive()
    }
}
