//! What is done with the rest of a body that nobody wants.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{runtime::Handle, time::timeout};

/// How long the rest of a body is read on.
const LONGEST: Duration = Duration::from_secs(2);
/// How many bytes of it are read on at most, so that nobody keeps the server busy with what it has refused.
const MOST: usize = 16 << 20;

/// A body of which the rest is read and forgotten for a while where a request is answered before its end. The connection ends when it
/// is dropped, and a client that still sends would then meet a broken connection, and not the answer.
pub(crate) struct Lingering {
    body: Body,
    ended: bool,
}

impl Lingering {
    pub(crate) fn around(body: Body) -> Body {
        match body.is_end_stream() {
            true => body,
            false => Body::new(Self { body, ended: false }),
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.ended || self.body.is_end_stream() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let mut rest = mem::take(&mut self.body).into_data_stream();
        runtime.spawn(timeout(LONGEST, async move {
            let mut read = 0;
            while let Some(Ok(piece)) = rest.next().await {
                read += piece.len();
                if read > MOST {
                    break;
                }
            }
        }));
    }
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
