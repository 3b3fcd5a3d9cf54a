//! What a store honours, found out by trying it on objects of our own.

use object_store::{
    Error as Native, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
    path::Path,
};
use storage_core::{Error, ErrorKind, Metadata, Result};

use crate::{Naming, error, meta, names::Names};

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Findings {
    /// Attributes come back as they were given.
    pub(crate) attributes: bool,
    /// Conditions on writes are honoured.
    pub(crate) conditions: bool,
}

/// Writes, reads and deletes a few objects, which proves that the store can be reached and used.
pub(crate) async fn probe(store: &dyn ObjectStore, names: &Names, naming: Naming) -> Result<Findings> {
    let place = names.probe(&meta::text(&meta::token()));
    let findings = findings(store, &place, naming).await;
    for place in [below(&place), place] {
        match store.delete(&place).await {
            Ok(()) | Err(Native::NotFound { .. }) => {}
            // Nothing else writes under this name and nothing lists it, so that it stays does no harm.
            Err(error) => tracing::warn!(%place, %error, "a probe could not be deleted"),
        }
    }
    findings
}

async fn findings(store: &dyn ObjectStore, place: &Path, naming: Naming) -> Result<Findings> {
    let attributes = keeps_attributes(store, place).await?;
    if naming == Naming::Flat {
        let both = store.put(&below(place), "0".into()).await;
        both.map_err(|e| {
            let message = "the store cannot hold both `a` and `a/b`, or cannot be written; in the first case its naming is hierarchical";
            Error::new(ErrorKind::Config, message).with_source(error::read(e))
        })?;
    }
    Ok(Findings { attributes, conditions: honours_conditions(store, place).await? })
}

async fn keeps_attributes(store: &dyn ObjectStore, place: &Path) -> Result<bool> {
    let attributes = meta::attributes(&Metadata::new());
    let options = PutOptions::from(attributes.clone());
    if attempt(store.put_opts(place, "0".into(), options).await)?.is_none() {
        let plain = store.put(place, "0".into()).await;
        plain.map_err(error::read)?;
    }
    let head = GetOptions::new().with_head(true);
    let read = store.get_opts(place, head).await.map_err(error::read)?;
    Ok(read.attributes.get(&meta::ATTRIBUTE) == attributes.get(&meta::ATTRIBUTE))
}

/// Some stores ignore the condition, so each kind is tried once where it must hold and once where it must not.
async fn honours_conditions(store: &dyn ObjectStore, place: &Path) -> Result<bool> {
    let put = async |payload: &'static str, mode: PutMode| {
        let done = store.put_opts(place, PutPayload::from_static(payload.as_bytes()), mode.into());
        done.await
    };
    match put("1", PutMode::Create).await {
        Err(Native::AlreadyExists { .. } | Native::Precondition { .. }) => {}
        other => return attempt(other).map(|_| false),
    }
    let first = put("2", PutMode::Overwrite).await.map_err(error::read)?;
    if first.e_tag.is_none() {
        return Ok(false);
    }
    let first = PutMode::Update(UpdateVersion::from(first));
    match put("3", first.clone()).await {
        Err(Native::Precondition { .. }) => return Ok(false),
        other => {
            if attempt(other)?.is_none() {
                return Ok(false);
            }
        }
    }
    match put("4", first).await {
        Err(Native::Precondition { .. }) => Ok(true),
        other => attempt(other).map(|_| false),
    }
}

/// `None` for what the store says it cannot do.
fn attempt<T>(result: object_store::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(Native::NotImplemented { .. } | Native::NotSupported { .. }) => Ok(None),
        Err(e) => Err(error::read(e)),
    }
}

fn below(place: &Path) -> Path {
    place.clone().join("below")
}
