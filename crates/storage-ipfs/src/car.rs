//! A store as a CAR, and a store from one: the same tree and manifest as of an export to MFS.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cid::Cid;
use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    Body, DeleteOptions, Entry, Error, ErrorKind, ListOptions, PutOptions, Result, StatOptions, StorageBackend,
    defaults,
};

use crate::{
    error,
    http::Answer,
    node::{Node, Pin},
    record::{self, IMPORTS},
    store::{Session, Store},
};

/// How the names of directories of MFS begin that hold what a CAR is made of; the id of the store and a number follow.
pub(crate) const CARS: &str = "/storage-ipfs-export-";
/// More than the header of a CAR with one root ever has.
const HEADER: usize = 256;

/// The directories of MFS from which this process makes a CAR.
pub(crate) type Live = Arc<Mutex<HashSet<String>>>;

fn lock(live: &Live) -> MutexGuard<'_, HashSet<String>> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// The blocks of the keys that begin so, and a manifest, as a CAR.
    pub(crate) async fn export_car(&self, prefix: &str) -> Result<Body> {
        self.ready(self.prefix("")).await?;
        let (node, live) = (self.store.node()?.clone(), self.store.cars.clone());
        let own = format!("{CARS}{}-", self.store.id);
        // What processes have left that were killed.
        for name in node.names("/").await? {
            let path = format!("/{name}");
            if path.starts_with(&own) && !lock(&live).contains(&path) {
                node.remove(&path).await?;
            }
        }
        let path = format!("{own}{:016x}", fastrand::u64(..));
        lock(&live).insert(path.clone());
        // It keeps the blocks until the last is read, or nobody reads any more.
        let kept = Temporary { node: node.clone(), path, live, runtime: self.store.tasks.runtime.clone() };
        self.write_tree(&node, &kept.path, prefix).await?;
        let root = node.stat(&kept.path).await?.ok_or_else(error::unreadable)?.cid;
        let query = format!("arg={root}&progress=false&offline=true");
        let answer = Answer::to(node.request("dag/export", &query), node.timeout).await?;
        let pieces = answer.stream().map(move |piece| {
            let _ = &kept;
            piece
        });
        Ok(Body::stream(pieces))
    }

    /// Names everything that a CAR has.
    pub(crate) async fn import_car(&self, body: Body) -> Result<u64> {
        self.ready(self.prefix("")).await?;
        let node = self.store.node()?.clone();
        let (body, root) = announced(body).await?;
        let note = record::import_key(&root)?;
        let index = &self.store.index;
        let noted = index.stat(&note, StatOptions::new()).await.map_err(|e| self.store.own(e))?.is_some();
        // Somebody else's pin of the same root stays, with its name, which the import takes from it. One without a name may be that of an
        // import that was killed.
        let is_ours = |pin: &Pin| pin.name == self.store.pin_name || (noted && pin.name.is_empty());
        let theirs = node.pin(&root).await?.filter(|pin| !is_ours(pin));
        if theirs.is_none() {
            index.put(&note, Body::default(), PutOptions::new()).await.map_err(|e| self.store.own(e))?;
        }
        node.import(body).await?;
        // Whatever happens now, a sweep finds it by that name.
        let name = theirs.as_ref().map_or(&self.store.pin_name, |pin| &pin.name);
        node.pin_add(&root, name, true).await?;
        let imported = self.name_all(root).await;
        if theirs.is_none() {
            node.pin_rm(&root, node.timeout).await?;
            index.delete(&note, DeleteOptions::new()).await.map_err(|e| self.store.own(e))?;
        }
        imported
    }
}

/// Unpins what imports have left that were killed before their pin had a name.
pub(crate) async fn sweep(store: &Store) -> Result<()> {
    let listing = store.index.list(ListOptions::new().prefix(IMPORTS)).await?;
    let notes: Vec<Entry> = defaults::entries(listing).try_collect().await?;
    for note in notes {
        let age = store.now().await.ok().zip(note.modified).and_then(|(now, since)| now.duration_since(since).ok());
        let root = note.key.as_str().strip_prefix(IMPORTS).and_then(|root| Cid::try_from(root).ok());
        let Some(root) = root.filter(|_| age.is_some_and(|age| age >= store.config.sweep_after)) else { continue };
        let node = store.node()?;
        if node.pin(&root).await?.is_some_and(|pin| pin.name.is_empty()) {
            node.pin_rm(&root, node.timeout).await?;
        }
        store.index.delete(&note.key, DeleteOptions::new()).await?;
    }
    Ok(())
}

/// The same body, and the root that it announces.
async fn announced(body: Body) -> Result<(Body, Cid)> {
    let mut stream = body.into_stream();
    let (mut head, mut pieces) = (Vec::new(), Vec::new());
    while head.len() < HEADER {
        let Some(piece) = stream.next().await.transpose()? else { break };
        head.extend_from_slice(&piece[..piece.len().min(HEADER)]);
        pieces.push(Ok(piece));
    }
    let root = root_of(&head).ok_or_else(no_car)?;
    Ok((Body::stream(futures_util::stream::iter(pieces).chain(stream)), root))
}

/// The root that the header of a CAR names: <https://ipld.io/specs/transport/car/carv1/>. In DAG-CBOR, a link is tag 42 around bytes that
/// begin with a zero.
fn root_of(head: &[u8]) -> Option<Cid> {
    let at = head.windows(3).position(|window| window == [0xd8, 0x2a, 0x58])?;
    let (len, bytes) = head.get(at + 3..)?.split_first()?;
    Cid::try_from(bytes.get(1..usize::from(*len))?).ok()
}

pub(crate) fn no_car() -> Error {
    Error::new(ErrorKind::Corrupt, "the body is not a CAR with one root")
}

/// A directory of MFS that is removed when it is not needed any more.
struct Temporary {
    node: Arc<Node>,
    path: String,
    live: Live,
    runtime: tokio::runtime::Handle,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let (node, path, live) = (self.node.clone(), std::mem::take(&mut self.path), self.live.clone());
        self.runtime.spawn(async move {
            if let Err(e) = node.remove(&path).await {
                tracing::warn!(error = %e, path, "a directory of MFS is left that an export has made; the next export removes it");
            }
            lock(&live).remove(&path);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixfs::leaf;

    #[test]
    fn the_root_of_a_header_is_found() {
        let root = leaf(b"x");
        let header = |cid: &[u8]| {
            let link = [&[0xd8, 0x2a, 0x58, cid.len() as u8 + 1, 0], cid].concat();
            [b"\x3a\xa2\x65roots\x81".as_slice(), &link, b"\x67version\x01"].concat()
        };
        assert_eq!(root_of(&header(&root.to_bytes())), Some(root));
        assert_eq!(root_of(&header(&root.to_bytes())[..40]), None);
        assert_eq!(root_of(&header(b"")), None);
        assert_eq!(root_of(b"no car"), None);
    }
}
