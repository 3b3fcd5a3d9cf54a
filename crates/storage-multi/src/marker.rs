//! The marker in each store, which says whose it is: of which set, under which name, and how the set is laid out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage_core::{
    Body, Condition, DeleteOptions, Error, ErrorKind, GetOptions, Key, PutOptions, Result, StorageBackend,
};

use crate::{error::wrong, names};

/// The version of what is written here.
const SCHEMA: u32 = 1;

/// Whose a store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The version of the format.
    pub(crate) schema: u32,
    /// The strategy's name.
    pub(crate) strategy: String,
    /// The set of stores that it belongs to: 128 random bits.
    pub(crate) set: String,
    /// The name of the store in it.
    pub(crate) store: String,
    /// Drawn whenever a store is taken into the set: one that was emptied and taken in again has another.
    pub(crate) incarnation: String,
    /// Where values are: names and weights of all stores, in the order of the names.
    pub(crate) layout: Vec<(String, u32)>,
    /// Whether every store of the set has its marker. From the first one that says so on, a store without one was emptied.
    pub(crate) complete: bool,
}

impl Marker {
    /// The marker of the first store of a new set.
    pub(crate) fn new(strategy: &str, store: &str, layout: Vec<(String, u32)>) -> Self {
        Self {
            schema: SCHEMA,
            strategy: strategy.into(),
            set: random(),
            store: store.into(),
            incarnation: random(),
            layout,
            complete: false,
        }
    }

    /// The marker of another store of the same set.
    pub(crate) fn beside(&self, store: &str) -> Self {
        Self { store: store.into(), incarnation: random(), complete: false, ..self.clone() }
    }

    /// Reads the marker of a store; `None` where there is none.
    ///
    /// # Errors
    /// `Config` for one of a newer version; `Corrupt` for one that cannot be read; those of the store.
    pub(crate) async fn read(backend: &Arc<dyn StorageBackend>) -> Result<Option<Self>> {
        let options = GetOptions::new().prefer_buffered(true).entry(false);
        let Some(object) = backend.get(&key()?, options).await? else { return Ok(None) };
        let text = object.body.bytes(1 << 20).await?;
        let unreadable = || Error::new(ErrorKind::Corrupt, "the marker of the store is not readable");
        let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| unreadable().with_source(e))?;
        if json.get("schema").and_then(serde_json::Value::as_u64).is_some_and(|schema| schema > u64::from(SCHEMA)) {
            return Err(wrong("the marker of the store is of a newer version of this crate; use that version"));
        }
        serde_json::from_value(json).map(Some).map_err(|e| unreadable().with_source(e))
    }

    /// Writes the marker, unless another connection was faster: then theirs is answered.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn claim(self, backend: &Arc<dyn StorageBackend>) -> Result<Self> {
        let mut options = PutOptions::new();
        if backend.info().capabilities.conditional {
            options.condition = Some(Condition::IfAbsent);
        }
        match backend.put(&key()?, self.body()?, options).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        let there = Self::read(backend).await?;
        there.ok_or_else(|| Error::new(ErrorKind::Conflict, "the marker was removed as soon as it was written"))
    }

    /// Writes it in place of the one that is there.
    ///
    /// # Errors
    /// Those of the store.
    async fn replace(&self, backend: &Arc<dyn StorageBackend>) -> Result<()> {
        backend.put(&key()?, self.body()?, PutOptions::new()).await.map(drop)
    }

    /// Says in these that every store has its marker.
    ///
    /// # Errors
    /// Those of the stores.
    pub(crate) async fn complete(of: Vec<(Arc<dyn StorageBackend>, Self)>) -> Result<()> {
        for (backend, marker) in of {
            if !marker.complete {
                Self { complete: true, ..marker }.replace(&backend).await?;
            }
        }
        Ok(())
    }

    /// Removes it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn remove(backend: &Arc<dyn StorageBackend>) -> Result<()> {
        backend.delete(&key()?, DeleteOptions::new()).await
    }

    fn body(&self) -> Result<Body> {
        let text = serde_json::to_string(self);
        text.map(Body::from).map_err(|e| Error::new(ErrorKind::Other, "the marker cannot be written").with_source(e))
    }
}

fn key() -> Result<Key> {
    Key::parse(names::MARKER)
}

fn random() -> String {
    format!("{:032x}", fastrand::u128(..))
}
