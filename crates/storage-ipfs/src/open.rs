//! Connecting: what the index must be able to do, which store it is the index of, and whose the node is.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use storage_config::Durability;
use storage_core::{
    BackendInfo, Body, Capabilities, Error, ErrorKind, GetOptions, Key, ListOptions, Metadata, PutOptions, Result,
    StorageBackend,
};
use tokio::runtime::Handle;

use crate::{
    Config,
    blocks::Blocks,
    error::wrong,
    node::Node,
    record::{KEY_OVERHEAD, METADATA_OVERHEAD, OLDEST_SCHEMA, SCHEMA},
    store::Store,
    sweep::Sweeper,
    task::Tasks,
};
use futures_util::StreamExt;

/// The directory of MFS with a file for each store that pins on the node.
const MARKERS: &str = "/storage-ipfs";

/// The record `s/store`.
#[derive(Serialize, Deserialize)]
struct Identity {
    schema: u32,
    id: String,
}

pub(crate) async fn open(config: Config, index: Arc<dyn StorageBackend>, own: bool) -> Result<Arc<Store>> {
    config.check()?;
    let runtime = Handle::try_current().map_err(|_| wrong("an IPFS store is connected within a tokio runtime"))?;
    let info = info(&config, index.info())?;
    let blocks = match &config.gateway {
        Some(gateway) => Blocks::gateway(gateway, config.timeout)?,
        None => {
            let node = Node::new(&config)?;
            node.version().await?;
            check_durability(&config, &node).await?;
            Blocks::Node(Arc::new(node))
        }
    };
    let id = identity(&*index, blocks.node().is_some()).await?;
    if let Some(node) = blocks.node() {
        mark(&config, node, &id).await?;
    }
    // An unfinished commit of the index takes no longer than one of its own calls.
    let tasks = Tasks::new(runtime, config.timeout.max(Duration::from_secs(30)));
    let has_node = blocks.node().is_some();
    let store = Arc::new(Store::new(info, config, blocks, (index, own), id, tasks)?);
    if has_node {
        Sweeper::run(&store);
        // What an earlier process left in the queue.
        store.sweeper.missed();
    }
    Ok(store)
}

fn info(config: &Config, index: &BackendInfo) -> Result<BackendInfo> {
    let has = index.capabilities;
    let needed = [
        ("conditional", has.conditional),
        ("conditional_delete", has.conditional_delete),
        ("version_etags", has.version_etags),
        ("transactions", has.transactions),
    ];
    if let Some((name, _)) = needed.iter().find(|(_, has)| !has) {
        return Err(wrong(format!(
            "the index must be a store with the capability `{name}`, which `{}` does not declare; SQLite and PostgreSQL do",
            index.id
        )));
    }
    let mut capabilities = Capabilities::new()
        .atomic()
        .conditional()
        .conditional_delete()
        .version_etags()
        .transactions()
        .sources()
        .streaming();
    capabilities.queryable = has.queryable;
    let mut info = BackendInfo::new("ipfs", capabilities);
    info.description = "Values as content on an IPFS node, their keys in an index".into();
    info.version = env!("CARGO_PKG_VERSION").into();
    info.isolation = index.isolation;
    info.consistency = index.consistency;
    info.limits.time_granularity = index.limits.time_granularity;
    info.limits.key = index.limits.key.saturating_sub(KEY_OVERHEAD + config.prefix.len());
    if info.limits.key < Key::MIN_LIMIT {
        return Err(wrong("the option `prefix` leaves fewer than 512 bytes for a key; choose a shorter one"));
    }
    // A field's name may get one more byte, and a field takes at least seven.
    info.limits.metadata = index.limits.metadata.saturating_sub(METADATA_OVERHEAD) / 8 * 7;
    if info.limits.metadata < Metadata::MIN_LIMIT {
        return Err(wrong("the index keeps too little metadata; choose another store for it"));
    }
    Ok(info)
}

/// The id of the store whose index this is; a new one for an empty index. One that is going to be written says which version does so.
async fn identity(index: &dyn StorageBackend, writes: bool) -> Result<String> {
    let key = Key::parse("s/store")?;
    for _ in 0..3 {
        if let Some(object) = index.get(&key, GetOptions::new()).await? {
            let foreign = || wrong("the index is not one of an IPFS store; name another store, or an empty one");
            let bytes = object.body.bytes(1 << 16).await.map_err(|_| foreign())?;
            let mut identity: Identity = serde_json::from_slice(&bytes).map_err(|_| foreign())?;
            if !(OLDEST_SCHEMA..=SCHEMA).contains(&identity.schema) {
                return Err(wrong(
                    "the index was written by another version of storage-ipfs; use that, or rebuild the index",
                ));
            }
            if identity.schema == SCHEMA || !writes {
                return Ok(identity.id);
            }
            identity.schema = SCHEMA;
            let record = serde_json::to_string(&identity).unwrap_or_default();
            let unchanged =
                object.entry.etag.as_ref().map_or(PutOptions::new(), |etag| PutOptions::new().if_match(etag));
            match index.put(&key, Body::from(record), unchanged).await {
                Ok(_) => return Ok(identity.id),
                // Another process was first.
                Err(e) if e.kind() == ErrorKind::PreconditionFailed => continue,
                Err(e) => return Err(e),
            }
        }
        let mut first = index.list(ListOptions::new().limit(1)).await?;
        if first.next().await.transpose()?.is_some_and(|item| item.position() != "s/store") {
            return Err(wrong("the index holds values of something else; name an empty store"));
        }
        let identity = Identity { schema: SCHEMA, id: format!("{:032x}", fastrand::u128(..)) };
        let record = serde_json::to_string(&identity).unwrap_or_default();
        match index.put(&key, Body::from(record), PutOptions::new().if_absent()).await {
            Ok(_) => return Ok(identity.id),
            // Another process was first.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(ErrorKind::Conflict, "the index is being removed by somebody; try again"))
}

/// Makes an empty index that of the store with this id.
pub(crate) async fn adopt(index: &dyn StorageBackend, id: &str) -> Result<()> {
    let mut first = index.list(ListOptions::new().limit(1)).await?;
    if first.next().await.transpose()?.is_some() {
        return match identity(index, true).await? {
            own if own == id => Ok(()),
            _ => Err(wrong("the index is another store's; name an empty one")),
        };
    }
    let identity = Identity { schema: SCHEMA, id: id.to_owned() };
    let record = serde_json::to_string(&identity).unwrap_or_default();
    index.put(&Key::parse("s/store")?, Body::from(record), PutOptions::new().if_absent()).await.map(drop)
}

/// Writes the id of the store on the node, unless another store has done so.
async fn mark(config: &Config, node: &Node, id: &str) -> Result<()> {
    let before = node.names(MARKERS).await?;
    let is_new = !before.iter().any(|name| name == id);
    refuse(config, &before, id)?;
    if !is_new {
        return Ok(());
    }
    let marker = format!("{MARKERS}/{id}");
    node.write(&marker, "pins of this store are called storage-ipfs: and this name\n").await?;
    // Another may have come at the same time.
    let refused = refuse(config, &node.names(MARKERS).await?, id);
    if refused.is_err() {
        node.remove(&marker).await?;
    }
    refused
}

fn refuse(config: &Config, markers: &[String], id: &str) -> Result<()> {
    let Some(other) = markers.iter().find(|name| *name != id).filter(|_| !config.shared_node) else {
        return Ok(());
    };
    let other: String = other.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    Err(wrong(format!(
        "another store, with another index, uses this IPFS node; use its index, or set `shared_node`, after which neither \
         unpins anything; if that store is gone, remove its marker: `ipfs files rm {MARKERS}/{other}`"
    )))
}

/// Whether another store uses the node, too.
pub(crate) async fn is_shared(store: &Store) -> Result<bool> {
    Ok(store.node()?.names(MARKERS).await?.iter().any(|name| *name != store.id))
}

/// Whether the node writes to the disk what it acknowledges.
async fn check_durability(config: &Config, node: &Node) -> Result<()> {
    if config.durability == Durability::Relaxed {
        return Ok(());
    }
    let configuration = node.configuration().await?;
    if is_synced(configuration.pointer("/Datastore/Spec").unwrap_or(&serde_json::Value::Null)) {
        return Ok(());
    }
    Err(wrong(
        "the node does not write to the disk what it acknowledges: set `sync` of `flatfs` in its `Datastore.Spec` to true, or \
         `durability` to `relaxed`",
    ))
}

/// Whether a datastore that holds blocks has `sync` set wherever it has that setting.
fn is_synced(spec: &serde_json::Value) -> bool {
    match spec {
        serde_json::Value::Object(fields) => {
            let own = match fields.get("type").and_then(serde_json::Value::as_str) {
                Some("flatfs") => fields.get("sync") == Some(&serde_json::Value::Bool(true)),
                Some(_) | None => true,
            };
            own && fields.values().all(is_synced)
        }
        serde_json::Value::Array(items) => items.iter().all(is_synced),
        serde_json::Value::Null => false,
        _ => true,
    }
}
