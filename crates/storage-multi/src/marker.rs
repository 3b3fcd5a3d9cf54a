//! The marker in each store, which says whose it is: of which set, under which name, and how the set is laid out, or is being laid out anew.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage_core::{
    Body, Condition, DeleteOptions, Error, ErrorKind, Etag, GetOptions, Key, PutOptions, Result, StorageBackend,
};

use crate::{error::wrong, names};

/// The version of what is written here.
const SCHEMA: u32 = 1;

/// Stores by name, and their weights, in the order of the names.
pub(crate) type Layout = Vec<(String, u32)>;

/// How far a set is on its way from one layout to another. Each phase is in all markers before the next is in any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Nothing has changed, but everybody looks at the markers often.
    Prepared,
    /// Keys that will move are read at both homes, and not written.
    Closed,
    /// They are written at the new home, and moved.
    Moving,
    /// All are moved; everybody looks at the markers often.
    Ending,
    /// They are not written, while the last claims are removed.
    Cleaning,
}

/// A set on its way to another layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// How far it is.
    pub(crate) phase: Phase,
    /// Where values will be.
    pub(crate) to: Layout,
}

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
    /// Where values are.
    pub(crate) layout: Layout,
    /// Counts the changes of layout and phase: of several markers, the one with the highest is in force.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// The layout that the values are being moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moving: Option<Move>,
    /// Whether every store of the set has its marker. From the first one that says so on, a store without one was emptied.
    pub(crate) complete: bool,
}

impl Marker {
    /// The marker of the first store of a new set.
    pub(crate) fn new(strategy: &str, store: &str, layout: Layout) -> Self {
        Self {
            schema: SCHEMA,
            strategy: strategy.into(),
            set: random(),
            store: store.into(),
            incarnation: random(),
            layout,
            epoch: 0,
            moving: None,
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
        Ok(Self::read_with_etag(backend).await?.map(|(marker, _)| marker))
    }

    /// The same with the etag.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) async fn read_with_etag(backend: &Arc<dyn StorageBackend>) -> Result<Option<(Self, Option<Etag>)>> {
        let options = GetOptions::new().prefer_buffered(true).entry(false);
        let Some(object) = backend.get(&key()?, options).await? else { return Ok(None) };
        let etag = object.entry.etag;
        let text = object.body.bytes(1 << 20).await?;
        let unreadable = || Error::new(ErrorKind::Corrupt, "the marker of the store is not readable");
        let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| unreadable().with_source(e))?;
        if json.get("schema").and_then(serde_json::Value::as_u64).is_some_and(|schema| schema > u64::from(SCHEMA)) {
            return Err(wrong("the marker of the store is of a newer version of this crate; use that version"));
        }
        let marker = serde_json::from_value(json).map_err(|e| unreadable().with_source(e))?;
        Ok(Some((marker, etag)))
    }

    /// Writes it in place of the one with this etag. Whether that was still there.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn replace_if(&self, backend: &Arc<dyn StorageBackend>, etag: &Etag) -> Result<bool> {
        match backend.put(&key()?, self.body()?, PutOptions::new().if_match(etag)).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::PreconditionFailed | ErrorKind::Conflict) => Ok(false),
            Err(e) => Err(e),
        }
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
