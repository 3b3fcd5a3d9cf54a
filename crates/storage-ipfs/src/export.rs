//! A store as a tree of files in MFS with a manifest beside it, and as a CAR; and a store from these.
//!
//! A root has two entries: `tree`, which people browse, and `manifest.ndjson`, from which keys, metadata and sizes come back. Its first
//! line is a [`Head`], its last an [`End`], between them are [`Line`]s.

use std::sync::Arc;

use cid::Cid;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use storage_core::{
    Body, ByteStream, Bytes, Entry, Error, ErrorKind, Key, ListOptions, Metadata, Result, StorageBackend, defaults,
};

use crate::{
    blocks::{self, Blocks},
    car::CARS,
    error::{self, wrong},
    node::Node,
    query, read,
    store::{Session, Store},
    unixfs::{Block, entries},
};

/// The version of the manifest.
const MANIFEST: u32 = 1;
const FILE: &str = "manifest.ndjson";
/// A directory that an export has until it ends: whoever removes what it takes for left behind, takes that away, too.
const MARK: &str = "not-yet-whole";
/// How the names of directories go on that an export writes to, and that it replaces.
const NEW: &str = ".new-";
const OLD: &str = ".old-";
/// How many files are linked before MFS is flushed. A node refuses more than 256.
const UNFLUSHED: u64 = 100;
/// How many entries of a manifest are named in one transaction.
const TOGETHER: usize = 200;

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// The content identifier of the root.
    pub cid: String,
    /// How many values it has.
    pub entries: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    manifest: u32,
    store: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: Key,
    cid: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    /// Where the value is, below `tree`.
    path: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    entries: u64,
}

impl Session {
    /// Writes the keys that begin so to a directory of MFS, which is replaced if it is an earlier export.
    pub(crate) async fn export(&self, path: &str, prefix: &str) -> Result<Exported> {
        self.ready(self.prefix("")).await?;
        let path = checked(path)?;
        let node = self.store.node()?;
        let there = restored(node, &path).await?;
        if there && !is_export(node, &path).await? {
            return Err(wrong("there is something else at this path of MFS; name another one, or remove it"));
        }
        let token = fastrand::u64(..);
        let [new, old] = [NEW, OLD].map(|kind| format!("{path}{kind}{token:016x}"));
        // What exports to this path have left that were killed.
        for left in leftovers(node, &path, NEW).await? {
            node.remove(&left).await?;
        }
        let entries = match self.write_tree(node, &new, prefix).await {
            Ok(entries) => entries,
            Err(e) => {
                let _ = node.remove(&new).await;
                return Err(e);
            }
        };
        // There is always one of the two, whatever happens.
        if there {
            node.rename(&path, &old).await?;
        }
        node.rename(&new, &path).await?;
        for left in leftovers(node, &path, OLD).await? {
            node.remove(&left).await?;
        }
        let root = node.stat(&path).await?.ok_or_else(error::unreadable)?;
        Ok(Exported { cid: root.cid.to_string(), entries })
    }

    /// The tree first, and then the manifest, both of one moment of the index.
    pub(crate) async fn write_tree(&self, node: &Node, root: &str, prefix: &str) -> Result<u64> {
        let store = &self.store;
        let tx = store.index.begin().await?;
        let view: Arc<dyn StorageBackend> = tx.clone();
        let mark = format!("{root}/{MARK}");
        node.make_directory(&mark).await?;
        node.make_directory(&format!("{root}/tree")).await?;
        let mut all = listing(store, &*view, prefix).await?;
        let mut count = 0;
        while let Some(entry) = all.next().await.transpose()? {
            let part = read::part(&entry)?;
            let place = place(store, &*view, &entry.key).await?;
            node.link(&part.cid, &format!("{root}/tree/{place}")).await?;
            count += 1;
            if count % UNFLUSHED == 0 {
                node.flush(root).await?;
            }
        }
        node.flush(root).await?;
        let head = Head { manifest: MANIFEST, store: store.id.clone() };
        let head = stream::iter([line(&head)]);
        let (inside, viewed) = (store.clone(), view.clone());
        let body = listing(store, &*view, prefix).await?.and_then(move |entry| {
            let (store, view) = (inside.clone(), viewed.clone());
            async move {
                let part = read::part(&entry)?;
                let path = place(&store, &*view, &entry.key).await?;
                let metadata = entry.metadata.map(Arc::unwrap_or_clone).unwrap_or_default();
                line(&Line { key: entry.key, cid: part.cid.to_string(), size: part.size, metadata, path })
            }
        });
        let end = stream::iter([line(&End { entries: count })]);
        node.write_stream(&format!("{root}/{FILE}"), head.chain(body).chain(end).boxed()).await?;
        tx.rollback().await?;
        // Another export may have taken this one for left behind, and removed the first half.
        if node.stat(&mark).await?.is_none() {
            let what = "another export to the same path of MFS has begun meanwhile; export again when it has ended";
            return Err(Error::new(ErrorKind::Conflict, what));
        }
        node.remove(&mark).await?;
        node.flush(root).await?;
        Ok(count)
    }

    /// Names what the manifest below this root says.
    pub(crate) async fn name_all(&self, root: Cid) -> Result<u64> {
        let node = self.store.node()?.clone();
        let mut lines = manifest(&node, root).await?;
        let (mut read, mut end, mut some) = (0, None, Vec::new());
        check_head(lines.next().await.transpose()?)?;
        while let Some(text) = lines.next().await.transpose()? {
            if end.is_some() {
                return Err(no_manifest());
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => {
                    some.push(line);
                    read += 1;
                }
                Err(_) => end = Some(serde_json::from_slice::<End>(&text).map_err(|_| no_manifest())?),
            }
            if some.len() == TOGETHER {
                self.name(std::mem::take(&mut some)).await?;
            }
        }
        self.name(some).await?;
        // One that was cut short is told, after what it has was named.
        if end.is_some_and(|end| end.entries == read) { Ok(read) } else { Err(no_manifest()) }
    }

    async fn name(&self, lines: Vec<Line>) -> Result<()> {
        let mut items = Vec::with_capacity(lines.len());
        for line in lines {
            let options = storage_core::PutOptions::new().metadata(line.metadata).source(line.cid);
            line.key.check(&self.store.info)?;
            items.push((line.key, Body::default(), options));
        }
        let named = self.put_batch(items, storage_core::BatchOptions::new()).await?;
        named.into_iter().collect::<Result<Vec<_>>>().map(drop)
    }
}

/// The id of the store that has exported this root.
pub(crate) async fn store_of(node: &Arc<Node>, path: &str) -> Result<(Cid, String)> {
    let path = checked(path)?;
    restored(node, &path).await?;
    let root = node.stat(&path).await?.filter(|stat| stat.is_directory);
    let root = root.ok_or_else(|| wrong("there is no export at this path of MFS"))?;
    let mut lines = manifest(node, root.cid).await?;
    Ok((root.cid, check_head(lines.next().await.transpose()?)?))
}

/// Whether there is something at this path. An export that was killed while it replaced another has left that beside it.
async fn restored(node: &Node, path: &str) -> Result<bool> {
    if node.stat(path).await?.is_some() {
        return Ok(true);
    }
    for left in leftovers(node, path, OLD).await? {
        if is_export(node, &left).await? {
            node.rename(&left, path).await?;
            return Ok(true);
        }
    }
    Ok(false)
}

async fn is_export(node: &Node, path: &str) -> Result<bool> {
    let is_directory = node.stat(path).await?.is_some_and(|stat| stat.is_directory);
    Ok(is_directory && node.names(path).await?.iter().any(|name| name == FILE))
}

/// What exports of this path that did not end have left beside it.
async fn leftovers(node: &Node, path: &str, kind: &str) -> Result<Vec<String>> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_left = |other: &String| {
        let token = other.strip_prefix(name).and_then(|rest| rest.strip_prefix(kind));
        token.is_some_and(|token| token.len() == 16 && token.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let names = node.names(if parent.is_empty() { "/" } else { parent }).await?;
    Ok(names.into_iter().filter(is_left).map(|other| format!("{parent}/{other}")).collect())
}

fn check_head(line: Option<Bytes>) -> Result<String> {
    let head: Head = serde_json::from_slice(&line.unwrap_or_default()).map_err(|_| no_manifest())?;
    if head.manifest != MANIFEST {
        return Err(wrong("the manifest was written by another version of storage-ipfs"));
    }
    Ok(head.store)
}

/// The lines of the manifest below a root, each block of it verified.
async fn manifest(node: &Arc<Node>, root: Cid) -> Result<stream::BoxStream<'static, Result<Bytes>>> {
    let blocks = Arc::new(Blocks::Node(node.clone()));
    let directory = entries(&root, node.block(&root, true).await?)?;
    let cid = directory.into_iter().find(|(name, _)| name == FILE.as_bytes()).ok_or_else(no_manifest)?.1;
    let block = Block::read(&cid, node.block(&cid, true).await?)?;
    let size = block.size();
    let pieces = blocks::read(blocks, block, 0..size, 0);
    Ok(split(pieces))
}

/// The lines of a text that comes in pieces.
fn split(pieces: ByteStream) -> stream::BoxStream<'static, Result<Bytes>> {
    let step = |(mut pieces, mut rest): (ByteStream, Vec<u8>)| async move {
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let later = rest.split_off(end + 1);
                rest.truncate(end);
                return Ok::<_, Error>(Some((Bytes::from(rest), (pieces, later))));
            }
            match pieces.next().await.transpose()? {
                Some(piece) => rest.extend_from_slice(&piece),
                None if rest.is_empty() => return Ok(None),
                None => return Err(no_manifest()),
            }
        }
    };
    stream::try_unfold((pieces, Vec::new()), step).boxed()
}

async fn listing(store: &Store, view: &dyn StorageBackend, prefix: &str) -> Result<storage_core::EntryStream> {
    let options = ListOptions::new().prefix(prefix).metadata(true);
    let listing = query::list(view, &store.names, options).await?;
    // What is damaged names no content.
    let sound = |entry: &Entry| std::future::ready(entry.damaged.is_none());
    Ok(defaults::entries(listing).try_filter(sound).boxed())
}

/// Where a value is below `tree`: its key, with `%` before what is no name of a file. A key that is also a directory ends in `%`.
async fn place(store: &Store, view: &dyn StorageBackend, key: &Key) -> Result<String> {
    let name = |segment: &str| match segment {
        "" => "%".to_owned(),
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        segment => segment.chars().map(escaped).collect(),
    };
    let mut place = key.as_str().split('/').map(name).collect::<Vec<_>>().join("/");
    let below = store.names.prefix(&format!("{key}/"));
    if view.list(ListOptions::new().prefix(below).limit(1).etags(false)).await?.next().await.transpose()?.is_some() {
        place.push('%');
    }
    Ok(place)
}

fn escaped(c: char) -> String {
    if c == '%' || c.is_control() {
        c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
    } else {
        c.into()
    }
}

fn line<T: Serialize>(value: &T) -> Result<Bytes> {
    let mut text = serde_json::to_vec(value).map_err(|_| no_manifest())?;
    text.push(b'\n');
    Ok(text.into())
}

/// An absolute path without `.`, `..` and `//`, which MFS would clean away.
fn checked(path: &str) -> Result<String> {
    let names = path.strip_prefix('/').filter(|path| !path.is_empty());
    let plain = |names: &str| names.split('/').all(|name| !matches!(name, "" | "." | ".."));
    if names.is_some_and(plain)
        && !path.contains('\0')
        && !path.starts_with("/storage-ipfs/")
        && path != "/storage-ipfs"
        && !path.starts_with(CARS)
    {
        return Ok(path.to_owned());
    }
    Err(wrong("an export is written to an absolute path of MFS, as in `/backup`, and not to `/storage-ipfs`"))
}

fn no_manifest() -> Error {
    Error::new(ErrorKind::Corrupt, "there is no whole manifest of storage-ipfs; name an export of it")
}
