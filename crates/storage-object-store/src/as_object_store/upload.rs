//! An upload in parts: one streamed put that ends when the upload is completed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt, stream};
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

pub(super) struct Upload {
    location: Path,
    /// Parts wait here in the order of the calls; their callers know when they have been taken.
    parts: Option<mpsc::UnboundedSender<Message>>,
    put: Option<JoinHandle<Result<Entry>>>,
    /// Why the put has failed, for the parts that it did not take.
    failure: Arc<Mutex<Option<Error>>>,
}

impl Upload {
    pub(super) fn start(storage: Storage, location: Path, options: PutOptions) -> Self {
        let (parts, messages) = mpsc::unbounded_channel();
        let failure = Arc::new(Mutex::new(None));
        let (key, why) = (location.to_string(), failure.clone());
        let put = tokio::spawn(async move {
            let written = storage.put_with(key, Body::stream(pieces(messages)), options).await;
            *why.lock().unwrap_or_else(PoisonError::into_inner) = written.as_ref().err().cloned();
            written
        });
        Self { location, parts: Some(parts), put: Some(put), failure }
    }

    /// Waits for the put.
    async fn outcome(&mut self) -> NativeResult<Entry> {
        let put = self.put.take().ok_or_else(|| not_supported("the upload has ended"))?;
        put.await?.map_err(|e| failed(&self.location, e))
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
        if let Some(parts) = self.parts.take() {
            // If the put has failed, its outcome says so.
            let _ = parts.send(Message::End);
        }
        self.outcome().await.map(put_result)
    }

    async fn abort(&mut self) -> NativeResult<()> {
        self.parts = None;
        match self.put.take() {
            // It fails because its body does, and has cleaned up when it is over.
            Some(put) => match put.await? {
                Err(_) => Ok(()),
                Ok(_) => {
                    Err(failed(&self.location, Error::new(ErrorKind::Other, "the upload ended before it was aborted")))
                }
            },
            None => Err(not_supported("the upload has ended")),
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("location", &self.location).finish_non_exhaustive()
    }
}
