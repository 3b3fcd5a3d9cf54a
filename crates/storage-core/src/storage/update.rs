//! Compare-and-set on the handle.

use bytes::Bytes;

use super::{Storage, backoff::Backoff};
use crate::{
    Body, Entry, Error, ErrorKind, Etag, GetOptions, IntoKey, Key, PutOptions, Result, StorageBackend,
    TransactionOptions,
};

impl<B: StorageBackend + ?Sized> Storage<B> {
    /// Reads a value, passes it through `change`, and writes the result if nobody has written meanwhile; otherwise begins again,
    /// as often and as long as the defaults of [`TransactionOptions`] say. The metadata stays as it is.
    ///
    /// ```
    /// # async fn example(storage: storage_core::Storage) -> storage_core::Result<()> {
    /// storage
    ///     .update("counter", |old| {
    ///         let old = old.map_or(0, |value| value.len());
    ///         Ok::<_, storage_core::Error>(vec![b'i'; old + 1])
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` fails with; those of `get` and `put`; `Unsupported` without `conditional`. When every try lost the race, its
    /// `AlreadyExists`, `PreconditionFailed` or `Conflict`. A write whose outcome is not known is tried again only if it has not
    /// happened so far; otherwise its error, which is ambiguous, is returned.
    pub async fn update<V, E>(
        &self,
        key: impl IntoKey,
        mut change: impl FnMut(Option<Bytes>) -> Result<V, E> + Send,
    ) -> Result<Entry, E>
    where
        V: Into<Body> + Send,
        E: From<Error> + Send,
    {
        let key = self.call("update").key(key)?;
        let mut backoff = Backoff::begin(&TransactionOptions::new());
        // A write of ours that may still happen, and the etag under which it was sent.
        let mut doubt: Option<(Option<Etag>, Error)> = None;
        loop {
            let (old, before) = match self.get_with_entry(&key, GetOptions::new()).await? {
                Some((value, entry)) => (Some(value), Some(entry)),
                None => (None, None),
            };
            let etag = before.as_ref().and_then(|entry| entry.etag.clone());
            if let Some((_, e)) = doubt.take_if(|(sent_under, _)| *sent_under != etag) {
                return Err(e.into());
            }
            let options = self.replacing(&key, before)?;
            let e = match self.put_with(&key, change(old)?, options).await {
                Ok(entry) => return Ok(entry),
                Err(e) => e,
            };
            let lost_race =
                matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::PreconditionFailed | ErrorKind::Conflict);
            let e = match doubt.take() {
                // It may have been our own earlier write that was faster.
                Some((_, earlier)) if !e.is_ambiguous() => return Err(earlier.into()),
                _ => e,
            };
            let again = lost_race || e.is_ambiguous() && e.is_retryable();
            if !again || !backoff.again().await {
                return Err(e.into());
            }
            doubt = e.is_ambiguous().then_some((etag, e));
        }
    }

    /// Only if nobody has written since; with the metadata of what was there.
    fn replacing(&self, key: &Key, before: Option<Entry>) -> Result<PutOptions> {
        let Some(Entry { etag, metadata, .. }) = before else { return Ok(PutOptions::new().if_absent()) };
        let etag = etag.ok_or_else(|| self.call("update").explain(Error::unsupported("conditions")).with_key(key))?;
        let mut options = PutOptions::new().if_match(&etag);
        options.metadata = metadata;
        Ok(options)
    }
}
