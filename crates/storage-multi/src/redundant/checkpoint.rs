//! How far a repair is, as it stands in the stores.
//!
//! Each store that a repair compares has the same note, a fenced one included. A repair goes on behind it only if all that it compares have the
//! note of the same repair, so that one which was emptied or away meanwhile is compared from the beginning.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage_core::{DeleteOptions, Error, ErrorKind, GetOptions, Key, PutOptions, Result};

use super::Child;
use crate::names;

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Of the repair: random.
    repair: String,
    /// How many stores it compares.
    stores: usize,
    /// The key behind which it goes on.
    pub(super) after: Option<String>,
}

impl Checkpoint {
    /// Goes on with a repair of just these stores, or begins one.
    ///
    /// # Errors
    /// Those of the stores.
    pub(super) async fn begin(stores: &[(usize, Arc<Child>)], resume: bool) -> Result<Self> {
        let mut least: Option<Self> = None;
        for (_, child) in stores.iter().filter(|_| resume) {
            let note = Self::read(child).await?.filter(|note| note.stores == stores.len());
            let Some(note) = note.filter(|note| least.as_ref().is_none_or(|other| other.repair == note.repair)) else {
                least = None;
                break;
            };
            least = Some(match least {
                Some(other) if other.after < note.after => other,
                _ => note,
            });
        }
        if let Some(there) = least {
            return Ok(there);
        }
        let new = Self { repair: format!("{:032x}", fastrand::u128(..)), stores: stores.len(), after: None };
        new.write(stores).await?;
        Ok(new)
    }

    /// Notes that all up to and with this key are equal.
    ///
    /// # Errors
    /// Those of the stores.
    pub(super) async fn reach(&mut self, key: &Key, stores: &[(usize, Arc<Child>)]) -> Result<()> {
        self.after = Some(key.as_str().to_owned());
        self.write(stores).await
    }

    /// Removes the notes.
    ///
    /// # Errors
    /// Those of the stores.
    pub(super) async fn end(self, stores: &[(usize, Arc<Child>)]) -> Result<()> {
        for (_, child) in stores {
            let done = child.backend().await?.delete(&key()?, DeleteOptions::new()).await;
            done.map_err(|e| child.error(e))?;
        }
        Ok(())
    }

    /// A note that cannot be read is none.
    async fn read(child: &Child) -> Result<Option<Self>> {
        let options = GetOptions::new().prefer_buffered(true).entry(false);
        let note = match child.backend().await?.get(&key()?, options).await {
            Ok(note) => note,
            Err(e) if e.kind() == ErrorKind::Corrupt => None,
            Err(e) => return Err(child.error(e)),
        };
        let Some(note) = note else { return Ok(None) };
        let text = note.body.bytes(1 << 16).await.map_err(|e| child.error(e))?;
        Ok(serde_json::from_slice(&text).ok())
    }

    async fn write(&self, stores: &[(usize, Arc<Child>)]) -> Result<()> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|e| Error::new(ErrorKind::Other, "the note cannot be written").with_source(e))?;
        for (_, child) in stores {
            let put = child.backend().await?.put(&key()?, text.clone().into(), PutOptions::new()).await;
            put.map_err(|e| child.error(e))?;
        }
        Ok(())
    }
}

fn key() -> Result<Key> {
    Key::parse(names::REPAIR)
}
