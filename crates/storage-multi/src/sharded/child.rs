//! One of the stores, and what the caller sees of what it says.

use std::sync::Arc;

use storage_core::{
    Condition, Entry, Error, ErrorKind, Etag, GetOptions, Key, Object, Result, StatOptions, StorageBackend,
};

use crate::{error, names};

/// A store by its name.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) name: Arc<str>,
    pub(super) weight: u32,
    pub(super) backend: Arc<dyn StorageBackend>,
}

impl Child {
    pub(super) fn error(&self, e: Error) -> Error {
        error::above(&self.name, e)
    }

    /// The caller's entry. Two stores may have the same etag for a key that moves between them, so each has its name before it.
    pub(super) fn entry(&self, mut entry: Entry) -> Result<Entry> {
        entry.key = names::key_above(entry.key)?;
        entry.etag = entry.etag.map(|etag| Etag::new(format!("{}/{etag}", self.name)));
        entry.damaged = entry.damaged.map(|e| self.error(e));
        entry.attributes.insert("source", &*self.name);
        Ok(entry)
    }

    pub(super) fn object(&self, object: Object) -> Result<Object> {
        let body = error::body_above(&self.name, object.body);
        Ok(Object::new(self.entry(object.entry)?, body))
    }

    /// The value under the store's own key, as the caller sees it.
    pub(super) async fn get(&self, below: &Key, options: GetOptions) -> Result<Option<Object>> {
        let Some(options) = self.reading(options) else {
            // A damaged value is told as such, whatever the etag.
            self.backend.stat(below, StatOptions::new()).await.map_err(|e| self.error(e))?;
            return Err(Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or there is none"));
        };
        let object = self.backend.get(below, options).await.map_err(|e| self.error(e))?;
        object.map(|object| self.object(object)).transpose()
    }

    /// The store's own etag; `None` for one of another store.
    pub(super) fn etag(&self, etag: &Etag) -> Option<Etag> {
        etag.as_str().strip_prefix(&*self.name)?.strip_prefix('/').map(Etag::new)
    }

    /// The store's own condition.
    ///
    /// # Errors
    /// `PreconditionFailed` for an etag of another store.
    pub(super) fn condition(&self, condition: Option<Condition>) -> Result<Option<Condition>> {
        match condition {
            Some(Condition::IfMatch(etag)) => self.etag(&etag).map(Condition::IfMatch).map(Some).ok_or_else(|| {
                Error::new(ErrorKind::PreconditionFailed, "the value has another etag, or there is none")
            }),
            condition => Ok(condition),
        }
    }

    /// The store's own options; `None` where they name an etag that no value of this store has.
    fn reading(&self, mut options: GetOptions) -> Option<GetOptions> {
        if let Some(etag) = options.if_match.take() {
            options.if_match = Some(self.etag(&etag)?);
        }
        options.if_none_match = options.if_none_match.and_then(|etag| self.etag(&etag));
        Some(options)
    }
}
