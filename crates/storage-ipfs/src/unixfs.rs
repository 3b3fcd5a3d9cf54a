//! Files as IPFS stores them: raw leaves of a megabyte under a balanced tree of UnixFS nodes, each named by the hash of its bytes.
//!
//! <https://specs.ipfs.tech/unixfs/>, <https://ipld.io/specs/codecs/dag-pb/spec/>. What is written is what `unixfs-v1-2025` names; what is
//! read may be any file.

use std::ops::Range;

use bytes::Bytes;
use cid::{Cid, multihash::Multihash};
use prost::Message;
use ring::digest::{Context, SHA256};
use storage_core::{Error, ErrorKind, Result};

/// Bytes of a leaf.
pub(crate) const CHUNK: usize = 1 << 20;
/// Links of a node.
pub(crate) const WIDTH: usize = 1024;
/// No node hands out a larger block: twice what they exchange with one another.
pub(crate) const MAX_BLOCK: usize = 4 << 20;

const RAW: u64 = 0x55;
const DAG_PB: u64 = 0x70;
const SHA2_256: u64 = 0x12;
const IDENTITY: u64 = 0x00;

/// What the node of a file says of it, in the field `Data`.
#[derive(Clone, PartialEq, Message)]
struct UnixFs {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bytes = "bytes", optional, tag = "2")]
    data: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    size: Option<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    block_sizes: Vec<u64>,
}

const KIND_RAW: i32 = 0;
const KIND_DIRECTORY: i32 = 1;
const KIND_FILE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", optional, tag = "1")]
    hash: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    name: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    total: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(bytes = "bytes", optional, tag = "1")]
    data: Option<Bytes>,
    #[prost(message, repeated, tag = "2")]
    links: Vec<Link>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) cid: Cid,
    /// Bytes of the file.
    pub(crate) size: u64,
}

/// A block that was read and is what its name says.
#[derive(Debug)]
pub(crate) enum Block {
    Leaf(Bytes),
    /// Bytes of its own, and what follows them.
    Branch(Bytes, Vec<Part>),
}

impl Block {
    /// Reads the block of this name.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are not those of the name, or not a file's; `Unsupported` for a name whose hash is not SHA-256.
    pub(crate) fn read(cid: &Cid, bytes: Bytes) -> Result<Self> {
        verify(cid, &bytes)?;
        match cid.codec() {
            RAW => Ok(Self::Leaf(bytes)),
            DAG_PB => Self::node(bytes),
            _ => Err(no_file()),
        }
    }

    fn node(bytes: Bytes) -> Result<Self> {
        let node = Node::decode(bytes).map_err(|_| no_file())?;
        let file = UnixFs::decode(node.data.unwrap_or_default()).map_err(|_| no_file())?;
        if file.kind != KIND_FILE && file.kind != KIND_RAW {
            return Err(no_file());
        }
        let own = file.data.unwrap_or_default();
        if node.links.len() != file.block_sizes.len() {
            return Err(no_file());
        }
        let part = |(link, size): (&Link, &u64)| {
            let cid = Cid::try_from(link.hash.as_deref().unwrap_or_default()).map_err(|_| no_file())?;
            Ok(Part { cid, size: *size })
        };
        let parts: Vec<Part> = node.links.iter().zip(&file.block_sizes).map(part).collect::<Result<_>>()?;
        let block = if parts.is_empty() { Self::Leaf(own) } else { Self::Branch(own, parts) };
        match (file.size, block.checked_size()) {
            (_, None) => Err(no_file()),
            (Some(said), Some(size)) if said != size => Err(no_file()),
            _ => Ok(block),
        }
    }

    /// Bytes of the file below this block.
    pub(crate) fn size(&self) -> u64 {
        self.checked_size().unwrap_or(u64::MAX)
    }

    fn checked_size(&self) -> Option<u64> {
        match self {
            Self::Leaf(bytes) => Some(bytes.len() as u64),
            Self::Branch(own, parts) => parts.iter().try_fold(own.len() as u64, |sum, part| sum.checked_add(part.size)),
        }
    }
}

/// The names in a directory and what they stand for, of a block that is what its own name says. A file has no names.
///
/// # Errors
/// As [`Block::read`].
pub(crate) fn entries(cid: &Cid, bytes: Bytes) -> Result<Vec<(Vec<u8>, Cid)>> {
    verify(cid, &bytes)?;
    if cid.codec() != DAG_PB {
        return Ok(Vec::new());
    }
    let node = Node::decode(bytes).map_err(|_| no_file())?;
    let kind = UnixFs::decode(node.data.unwrap_or_default()).map_err(|_| no_file())?.kind;
    if kind != KIND_DIRECTORY {
        return Ok(Vec::new());
    }
    let entry = |link: Link| {
        let cid = Cid::try_from(link.hash.as_deref().unwrap_or_default()).map_err(|_| no_file())?;
        Ok((link.name.unwrap_or_default(), cid))
    };
    node.links.into_iter().map(entry).collect()
}

/// A directory that holds one file, which has `total` bytes in all its blocks: its name, and its block.
pub(crate) fn directory(file: &str, content: &Cid, total: u64) -> (Cid, Bytes) {
    let link = Link { hash: Some(content.to_bytes()), name: Some(file.as_bytes().to_vec()), total: Some(total) };
    node(vec![link], &UnixFs { kind: KIND_DIRECTORY, ..UnixFs::default() })
}

/// Bytes of all blocks of the file whose first block this is.
pub(crate) fn total(cid: &Cid, block: &Bytes) -> u64 {
    let links = match cid.codec() {
        DAG_PB => Node::decode(block.clone()).map(|node| node.links).unwrap_or_default(),
        _ => Vec::new(),
    };
    links.iter().fold(block.len() as u64, |sum, link| sum.saturating_add(link.total.unwrap_or_default()))
}

/// The parts that a range touches, with the range of each.
pub(crate) fn touched(own: u64, parts: Vec<Part>, range: &Range<u64>) -> Vec<(Part, Range<u64>)> {
    let mut at = own;
    let mut touched = Vec::new();
    for part in parts {
        let (start, end) = (range.start.max(at), range.end.min(at + part.size));
        if start < end {
            touched.push((part, start - at..end - at));
        }
        at += part.size;
    }
    touched
}

/// Whether it names bytes alone.
pub(crate) fn is_leaf(cid: &Cid) -> bool {
    cid.codec() == RAW
}

/// The bytes that a name holds itself, in place of a hash.
pub(crate) fn inlined(cid: &Cid) -> Option<Bytes> {
    (cid.hash().code() == IDENTITY).then(|| Bytes::copy_from_slice(cid.hash().digest()))
}

fn verify(cid: &Cid, bytes: &[u8]) -> Result<()> {
    let holds = match cid.hash().code() {
        SHA2_256 => ring::digest::digest(&SHA256, bytes).as_ref() == cid.hash().digest(),
        IDENTITY => bytes == cid.hash().digest(),
        _ => {
            let what = "the content is named by a hash other than SHA-256, which this backend cannot verify";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
    };
    if holds {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "a block is not what its name says; whoever delivered it has changed it"))
}

fn no_file() -> Error {
    Error::new(ErrorKind::Corrupt, "the content is not a UnixFS file")
}

/// The name of these bytes as a whole value of at most [`CHUNK`] bytes.
pub(crate) fn leaf(bytes: &[u8]) -> Cid {
    name(RAW, ring::digest::digest(&SHA256, bytes).as_ref())
}

fn name(codec: u64, digest: &[u8]) -> Cid {
    // A digest of SHA-256 has 32 bytes, and there is room for 64.
    let hash = Multihash::wrap(SHA2_256, digest).unwrap_or_default();
    Cid::new_v1(codec, hash)
}

/// Works out the name of a value that comes in pieces, as the node does.
pub(crate) struct Builder {
    leaf: Context,
    leaf_len: usize,
    size: u64,
    /// Nodes that have no parent yet, leaves first.
    levels: Vec<Vec<Child>>,
}

struct Child {
    part: Part,
    /// Bytes of all blocks below it and its own.
    total: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self { leaf: Context::new(&SHA256), leaf_len: 0, size: 0, levels: vec![Vec::new()] }
    }
}

impl Builder {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.leaf_len));
            self.leaf.update(now);
            self.leaf_len += now.len();
            self.size += now.len() as u64;
            bytes = later;
            if self.leaf_len == CHUNK {
                self.end_leaf();
            }
        }
    }

    /// The name and the size of what came, and the bytes of all blocks.
    pub(crate) fn finish(mut self) -> (Part, u64) {
        if self.leaf_len > 0 || self.size == 0 {
            self.end_leaf();
        }
        let mut at = 0;
        loop {
            let level = std::mem::take(&mut self.levels[at]);
            if let ([root], true) = (level.as_slice(), at + 1 == self.levels.len()) {
                return (root.part, root.total);
            }
            self.push(at + 1, branch(&level));
            at += 1;
        }
    }

    fn end_leaf(&mut self) {
        let digest = std::mem::replace(&mut self.leaf, Context::new(&SHA256)).finish();
        let size = self.leaf_len as u64;
        self.leaf_len = 0;
        self.push(0, Child { part: Part { cid: name(RAW, digest.as_ref()), size }, total: size });
    }

    /// A level that is full gets its parent only when another comes, so that none is ever empty.
    fn push(&mut self, at: usize, child: Child) {
        if at == self.levels.len() {
            self.levels.push(Vec::new());
        }
        if self.levels[at].len() == WIDTH {
            let full = std::mem::take(&mut self.levels[at]);
            self.push(at + 1, branch(&full));
        }
        self.levels[at].push(child);
    }
}

/// The node above these.
fn branch(children: &[Child]) -> Child {
    let size = children.iter().map(|child| child.part.size).sum();
    let block_sizes = children.iter().map(|child| child.part.size).collect();
    let file = UnixFs { kind: KIND_FILE, data: None, size: Some(size), block_sizes };
    let link = |child: &Child| Link {
        hash: Some(child.part.cid.to_bytes()),
        name: Some(Vec::new()),
        total: Some(child.total),
    };
    let (cid, block) = node(children.iter().map(link).collect(), &file);
    Child {
        part: Part { cid, size },
        total: block.len() as u64 + children.iter().map(|child| child.total).sum::<u64>(),
    }
}

/// A block in its canonical form, which has the links before the data, although their field has the higher number.
fn node(links: Vec<Link>, file: &UnixFs) -> (Cid, Bytes) {
    let mut bytes = Node { data: None, links }.encode_to_vec();
    bytes.extend(Node { data: Some(file.encode_to_vec().into()), links: Vec::new() }.encode_to_vec());
    (name(DAG_PB, ring::digest::digest(&SHA256, &bytes).as_ref()), bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_everybody_knows() {
        assert_eq!(leaf(b"").to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
        assert_eq!(Builder::default().finish().0.cid, leaf(b""));
        let mut builder = Builder::default();
        builder.update(b"hello ");
        builder.update(b"world");
        assert_eq!(builder.finish(), (Part { cid: leaf(b"hello world"), size: 11 }, 11));
    }

    /// As Kubo 0.43.1 named them for `add --wrap-with-directory`.
    #[test]
    fn a_directory_has_the_name_that_the_node_gives_it() {
        let file = "storage-ipfs-0123456789abcdef0123456789abcdef";
        let mut large = Builder::default();
        large.update(&vec![b'x'; 3 << 20]);
        let (large, total) = large.finish();
        assert_eq!(total, 3_145_887);
        for (content, total, expected) in [
            (leaf(b"hello world"), 11, "bafybeic62fn6bxo6qjtk4zn57nosy7zq4illta4bzkj2katphffxr4b5by"),
            (large.cid, total, "bafybeidbr5ld2iccu6zusb2hl4p5ytapumq4d6y6clpu65mpwvdwyfigqe"),
        ] {
            let (cid, block) = directory(file, &content, total);
            assert_eq!(cid.to_string(), expected);
            assert_eq!(entries(&cid, block).unwrap(), [(file.as_bytes().to_vec(), content)]);
        }
    }

    #[test]
    fn bytes_that_are_no_file_are_an_error() {
        let cid = |bytes: &[u8]| name(DAG_PB, ring::digest::digest(&SHA256, bytes).as_ref());
        let mut random = fastrand::Rng::with_seed(7);
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            // No panic, whatever they are.
            let _ = Block::read(&cid(&bytes), bytes.into());
        }
        let wrong = Block::read(&leaf(b"a"), Bytes::from_static(b"b")).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_range_touches_its_own_parts() {
        let part = |size| Part { cid: leaf(b""), size };
        let parts = vec![part(10), part(10), part(5)];
        let ranges = |range| -> Vec<_> { touched(0, parts.clone(), &range).into_iter().map(|(_, r)| r).collect() };
        assert_eq!(ranges(0..25), [0..10, 0..10, 0..5]);
        assert_eq!(ranges(9..11), [9..10, 0..1]);
        assert_eq!(ranges(10..21), [0..10, 0..1]);
        assert!(ranges(25..25).is_empty());
    }
}
