//! What stores missed, as it stands in one of the others, so that a repair can mend just that.
//!
//! It spares reading the listings. Safe is what the quorums make so: what is not written down, because a process was killed before it got to it, is found by
//! reads and by a repair of everything.

use std::sync::{Arc, atomic::Ordering};

use futures_util::TryStreamExt;
use ring::digest::{SHA256, digest};
use storage_core::{
    Condition, DeleteOptions, Entry, ErrorKind, GetOptions, Key, ListOptions, PutOptions, Result, StatOptions,
};

use super::{Child, Inner};
use crate::names;

/// A key of which a store missed a write, and where that stands.
pub(super) struct Missed {
    pub(super) key: Key,
    /// The store that missed it.
    pub(super) by: String,
    /// The store in which it stands, and as what.
    note: (Arc<Child>, Entry),
}

impl Inner {
    /// Writes down that all but these stores lack the newest write of a key, in the first of these that takes it.
    pub(super) async fn note_missed(&self, key: &Key, has: &[usize]) {
        if has.is_empty() {
            return;
        }
        for (at, child) in self.children.iter().enumerate().filter(|(at, _)| !has.contains(at)) {
            self.children[at].missed.fetch_add(1, Ordering::Relaxed);
            for there in has {
                let (note, there) = (note_of(child.name(), key), &self.children[*there]);
                let written = async {
                    there.backend().await?.put(&note?, key.as_str().to_owned().into(), PutOptions::new()).await
                };
                if written.await.is_ok() {
                    break;
                }
            }
        }
    }

    /// All that stands in these stores.
    pub(super) async fn journal(&self, present: &[(usize, Arc<Child>)]) -> Result<Vec<Missed>> {
        let mut all = Vec::new();
        for (_, child) in present {
            let backend = child.backend().await?;
            let notes = backend.list(ListOptions::new().prefix(names::MISSED)).await.map_err(|e| child.error(e))?;
            let notes: Vec<_> = notes.try_collect().await.map_err(|e| child.error(e))?;
            for entry in notes.into_iter().filter_map(storage_core::ListItem::into_entry) {
                let options = GetOptions::new().prefer_buffered(true).entry(false);
                let note = match backend.get(&entry.key, options).await {
                    Ok(note) => note,
                    Err(e) if e.kind() == ErrorKind::Corrupt => None,
                    Err(e) => return Err(child.error(e)),
                };
                let Some(note) = note else { continue };
                let text = note.body.bytes(1 << 16).await.map_err(|e| child.error(e))?;
                let key = str::from_utf8(&text).ok().and_then(|text| Key::parse(text).ok());
                let by = entry.key.as_str()[names::MISSED.len()..].split('/').next().map(str::to_owned);
                let (Some(key), Some(by)) = (key, by) else { continue };
                all.push(Missed { key, by, note: (child.clone(), entry) });
            }
        }
        Ok(all)
    }

    /// Removes a note, unless it was written again.
    pub(super) async fn settle(&self, missed: &Missed) -> Result<()> {
        let (child, entry) = &missed.note;
        let backend = child.backend().await?;
        let mut options = DeleteOptions::new();
        if backend.info().capabilities.conditional_delete {
            options.condition = entry.etag.clone().map(Condition::IfMatch);
        } else {
            let now = backend.stat(&entry.key, StatOptions::new()).await.map_err(|e| child.error(e))?;
            if now.is_none_or(|now| (now.etag, now.modified) != (entry.etag.clone(), entry.modified)) {
                return Ok(());
            }
        }
        match backend.delete(&entry.key, options).await {
            Err(e) if e.kind() != ErrorKind::PreconditionFailed => Err(child.error(e)),
            _ => Ok(()),
        }
    }
}

/// Where it stands that a store missed a write of a key.
fn note_of(store: &str, key: &Key) -> Result<Key> {
    let digest = digest(&SHA256, key.as_str().as_bytes());
    let digest: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Key::parse(&format!("{}{store}/{digest}", names::MISSED))
}
