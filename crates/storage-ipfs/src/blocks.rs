//! Where blocks come from, and values read block by block: each is compared with its name, and a range fetches what it touches.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use cid::Cid;
use futures_util::{FutureExt, StreamExt, stream, stream::BoxStream};
use storage_core::{Error, ErrorKind, Result};

use crate::{
    error,
    http::{self, Answer},
    node::Node,
    unixfs::{self, Block, MAX_BLOCK, Part, touched},
};

/// How many blocks are fetched ahead of the one that is read.
const AHEAD: usize = 4;
/// No file that fits `u64` has a deeper tree.
const DEEPEST: usize = 32;

/// Who delivers blocks.
#[derive(Debug)]
pub(crate) enum Blocks {
    Node(Arc<Node>),
    /// Any gateway that knows <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.
    Gateway {
        client: reqwest::Client,
        address: String,
        timeout: Duration,
    },
}

impl Blocks {
    pub(crate) fn gateway(address: &str, timeout: Duration) -> Result<Self> {
        let address = address.trim_end_matches('/').to_owned();
        Ok(Self::Gateway { client: http::client(timeout)?, address, timeout })
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Node(node) => Some(node),
            Self::Gateway { .. } => None,
        }
    }

    async fn fetch(&self, cid: &Cid) -> Result<Bytes> {
        if let Some(bytes) = unixfs::inlined(cid) {
            return Ok(bytes);
        }
        match self {
            Self::Node(node) => match node.block(cid, true).await {
                // It is pinned, and so should be there; if not, another node may have it.
                Err(e) if error::is_not_found(&e) => node.block(cid, false).await,
                block => block,
            },
            Self::Gateway { client, address, timeout } => {
                let request = client.get(format!("{address}/ipfs/{cid}?format=raw"));
                let request = request.header(::http::header::ACCEPT, "application/vnd.ipld.raw");
                Answer::to(request, *timeout).await.map_err(of_gateway)?.whole(MAX_BLOCK).await.map_err(of_gateway)
            }
        }
    }

    /// The block of a part, which has as many bytes of the value as its parent says.
    pub(crate) async fn block(&self, part: &Part) -> Result<Block> {
        sized(part, Block::read(&part.cid, self.fetch(&part.cid).await?)?)
    }

    /// The same, if it is here.
    pub(crate) async fn here(&self, part: &Part) -> Result<Block> {
        let bytes = match self {
            Self::Node(node) => node.block(&part.cid, true).await?,
            Self::Gateway { .. } => self.fetch(&part.cid).await?,
        };
        sized(part, Block::read(&part.cid, bytes)?)
    }
}

fn sized(part: &Part, block: Block) -> Result<Block> {
    if block.size() == part.size {
        return Ok(block);
    }
    Err(Error::new(ErrorKind::Corrupt, "the content does not have the size that is recorded for it"))
}

/// A gateway's words are not those of a node.
fn of_gateway(e: Error) -> Error {
    let (kind, message) = match e.kind() {
        ErrorKind::Config | ErrorKind::NotFound | ErrorKind::Other => (
            ErrorKind::Unavailable,
            "the gateway does not deliver the block; check `gateway`, and that a node provides the content",
        ),
        ErrorKind::Timeout => (ErrorKind::Timeout, "the gateway did not answer in time; try again, or raise `timeout`"),
        kind => (kind, "the gateway failed; try again"),
    };
    Error::new(kind, message).with_source(e)
}

/// The bytes of a range below a block.
pub(crate) fn read(
    blocks: Arc<Blocks>,
    block: Block,
    range: Range<u64>,
    depth: usize,
) -> BoxStream<'static, Result<Bytes>> {
    if depth > DEEPEST {
        let e = Error::new(ErrorKind::Corrupt, "the tree of the content is deeper than any value needs");
        return stream::iter([Err(e)]).boxed();
    }
    let (own, parts) = match block {
        Block::Leaf(bytes) => (bytes, Vec::new()),
        Block::Branch(own, parts) => (own, parts),
    };
    let parts = touched(own.len() as u64, parts, &range);
    let head = slice(&own, &range);
    let head = stream::iter((!head.is_empty()).then_some(Ok(head)));
    let fetching = blocks.clone();
    let fetched = stream::iter(parts).map(move |(part, range)| {
        let blocks = fetching.clone();
        async move { Ok::<_, Error>((blocks.block(&part).await?, range)) }.boxed()
    });
    let below = fetched.buffered(AHEAD).map(move |fetched| match fetched {
        Ok((Block::Leaf(bytes), range)) => stream::iter([Ok(slice(&bytes, &range))]).boxed(),
        Ok((block, range)) => read(blocks.clone(), block, range, depth + 1),
        Err(e) => stream::iter([Err(e)]).boxed(),
    });
    head.chain(below.flatten()).boxed()
}

/// What a range has of these bytes, which are the first.
pub(crate) fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(within(range.start)..within(range.end))
}
