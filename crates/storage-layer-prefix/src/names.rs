//! From a key of the namespace to the key below, and back.

use std::sync::Arc;

use storage_core::{Entry, Error, ErrorKind, Key, ListItem, Object, Result};

/// The prefix of a namespace, which ends with a `/`.
#[derive(Clone, Debug)]
pub(crate) struct Names(pub(crate) Arc<str>);

impl Names {
    /// A literal prefix, or a place to start after, below.
    pub(crate) fn text_below(&self, text: &str) -> String {
        format!("{}{text}", self.0)
    }

    /// # Errors
    /// `InvalidKey` when the key is too long with the prefix, which the handle has already refused by the limit.
    pub(crate) fn key_below(&self, key: &Key) -> Result<Key> {
        Key::parse(&self.text_below(key.as_str())).map_err(|_| {
            let len = key.as_str().len();
            let message = format!("the key has {len} bytes, which is too long below the prefix of this namespace");
            Error::new(ErrorKind::InvalidKey, message).with_key(key)
        })
    }

    /// Without the prefix. `None` for the key that is the prefix itself, which belongs to whoever is outside.
    pub(crate) fn key_above(&self, key: &Key) -> Option<Key> {
        key.as_str().strip_prefix(&*self.0).and_then(|rest| Key::parse(rest).ok())
    }

    pub(crate) fn entry(&self, mut entry: Entry) -> Result<Entry> {
        entry.key = self.key_above(&entry.key).ok_or_else(outside)?;
        entry.damaged = entry.damaged.map(|e| self.error(e));
        Ok(entry)
    }

    pub(crate) fn object(&self, mut object: Object) -> Result<Object> {
        object.entry = self.entry(object.entry)?;
        Ok(object)
    }

    pub(crate) fn item(&self, item: ListItem) -> Result<ListItem> {
        match item {
            ListItem::Entry(entry) => self.entry(entry).map(ListItem::Entry),
            ListItem::Prefix(prefix) => {
                let rest = prefix.strip_prefix(&*self.0).ok_or_else(outside)?;
                Ok(ListItem::Prefix(rest.to_owned()))
            }
            _ => Err(Error::unsupported("an item of a listing that is neither entry nor prefix")),
        }
    }

    /// The caller's key in place of the one below.
    pub(crate) fn error(&self, e: Error) -> Error {
        e.map_key(|key| self.key_above(&key))
    }
}

fn outside() -> Error {
    Error::new(ErrorKind::Other, "the backend answered with a key outside the namespace that it was asked about")
}
