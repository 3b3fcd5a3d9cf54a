//! How the stores are looked at and taken into a set.

use std::{sync::Arc, time::Duration};

use futures_util::{TryStreamExt, future::try_join_all};
use storage_config::StorageContext;
use storage_core::{
    BackendInfo, Capabilities, Consistency, Key, KeyShape, Limits, ListOptions, Result, StorageBackend, async_trait,
};
use tokio::time::Instant;

use super::{
    Child, Inner, Sharded,
    view::{View, Views},
};
use crate::{
    Config, Store, Strategy,
    error::{above, wrong},
    marker::{Layout, Marker},
    names,
};

/// The name of the strategy.
pub(super) const NAME: &str = "sharded";

/// What is passed on where each of the stores has it.
const KNOWN: Capabilities = Capabilities::new()
    .conditional()
    .conditional_delete()
    .version_etags()
    .sources()
    .atomic()
    .streaming()
    .queryable()
    .distributed()
    .encryption()
    .compression();

/// Makes [`Sharded`] of stores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sharding;

#[async_trait]
impl Strategy for Sharding {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(&self, stores: Vec<Store>, config: &Config, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        let options = ShardedOptions::new().rebalance(config.rebalance);
        Ok(Arc::new(Sharded::open_with(stores, options).await?))
    }
}

/// How [`Sharded`] is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardedOptions {
    /// Whether the stores and weights may be others than the set was made with. Values stay where they are, and new ones go by the set's
    /// layout, until [`Sharded::rebalance`] moves them. Not unless set.
    pub rebalance: bool,
}

impl ShardedOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stores and weights may be others than the set was made with.
    #[must_use]
    pub fn rebalance(mut self, rebalance: bool) -> Self {
        self.rebalance = rebalance;
        self
    }
}

impl Sharded {
    /// Opens the stores, which must be those that the set was made of, in any order, or empty ones that become a new set. Each gets a
    /// marker, under a key of its own beside the values.
    ///
    /// # Errors
    /// `Config` for stores that are not the set's, that hold values already, that are one and the same, or whose keys are too short;
    /// those of the stores.
    pub async fn open(stores: Vec<Store>) -> Result<Self> {
        Self::open_with(stores, ShardedOptions::new()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`open`](Self::open). `Config` for a set whose values are being moved, unless the stores are all that it had and will have.
    pub async fn open_with(mut stores: Vec<Store>, options: ShardedOptions) -> Result<Self> {
        stores.sort_by(|a, b| a.name().cmp(b.name()));
        if stores.is_empty() {
            return Err(wrong("no stores are given; name at least one"));
        }
        if stores.windows(2).any(|pair| pair[0].name() == pair[1].name()) {
            return Err(wrong("two stores have the same name; give each its own"));
        }
        if stores.iter().all(|store| store.weight() == 0) {
            return Err(wrong("the weight of every store is 0; at least one must take values"));
        }
        let opened = stores.iter().map(|store| async move {
            let backend = store.backend().await?.clone();
            Ok(Child { name: store.name().clone(), weight: store.weight(), backend })
        });
        let children: Vec<Child> = try_join_all(opened).await?;
        let info = info(&children)?;
        let read = Instant::now();
        let marker = join(&children, &options).await?;
        let views = Views::new(View::of(&marker, &children)?, read);
        Ok(Self(Arc::new(Inner { info, children, set: marker.set, views })))
    }
}

/// The stores that take values.
pub(super) fn layout_of(children: &[Child]) -> Layout {
    let taking = children.iter().filter(|child| child.weight > 0);
    taking.map(|child| (child.name.to_string(), child.weight)).collect()
}

fn listed(layout: &Layout) -> String {
    let names = layout.iter().map(|(name, weight)| format!("`{name}` (weight {weight})"));
    names.collect::<Vec<_>>().join(", ")
}

/// Makes sure that these stores are the set, with the layout that it has. New ones become one. Answers the marker that is in force.
async fn join(children: &[Child], options: &ShardedOptions) -> Result<Marker> {
    let layout = layout_of(children);
    let read = |child: &Child| {
        let child = child.clone();
        async move { Marker::read(&child.backend).await.map_err(|e| above(&child.name, e)) }
    };
    let markers = try_join_all(children.iter().map(read)).await?;
    let first = children.iter().find(|child| child.weight > 0).unwrap_or(&children[0]);
    let leader = match markers.iter().flatten().max_by_key(|marker| marker.epoch) {
        None => {
            if let Some(child) = children.iter().find(|child| child.weight == 0) {
                return Err(wrong(format!("the store `{}` has the weight 0, but there is no set yet", child.name)));
            }
            for child in children {
                is_empty(child).await?;
            }
            let marker = Marker::new(NAME, &first.name, layout.clone());
            marker.claim(&first.backend).await.map_err(|e| above(&first.name, e))?
        }
        Some(marker) => marker.clone(),
    };
    if leader.strategy != NAME {
        return Err(wrong(format!("the stores belong to a set of the strategy `{}`", leader.strategy)));
    }
    let of_set = |name: &str| {
        let to = leader.moving.iter().flat_map(|moving| &moving.to);
        leader.layout.iter().chain(to).any(|(other, _)| other == name)
    };
    let all_there = |layout: &Layout| layout.iter().all(|(name, _)| children.iter().any(|child| *child.name == **name));
    match &leader.moving {
        Some(moving) if moving.to != layout || !all_there(&leader.layout) => {
            return Err(wrong(format!(
                "the values are being moved from the stores {} to {}; open it with all of them, the new weights, and weight 0 for \
                 those that are left",
                listed(&leader.layout),
                listed(&moving.to)
            )));
        }
        Some(_) => {}
        None if leader.layout != layout && !(options.rebalance && all_there(&leader.layout)) => {
            return Err(wrong(format!(
                "the values are laid out over the stores {}; open it with these, or with `rebalance` to change them",
                listed(&leader.layout)
            )));
        }
        None => {}
    }
    let complete = markers.iter().flatten().any(|marker| marker.complete);
    let mut all = Vec::new();
    for (child, marker) in children.iter().zip(markers) {
        let marker = match marker {
            Some(marker) => marker,
            None if !of_set(&child.name) => continue,
            None if complete => {
                return Err(wrong(format!(
                    "the store `{}` has no marker any more: it was emptied, or another was put in its place; restore it",
                    child.name
                )));
            }
            None if child.name == first.name && leader.store == *first.name => leader.clone(),
            None => leader.beside(&child.name).claim(&child.backend).await.map_err(|e| above(&child.name, e))?,
        };
        if marker.set == leader.set && marker.store != *child.name {
            if !complete && leader.store == *first.name {
                // So that the stores can be told apart at the next try.
                Marker::remove(&first.backend).await.map_err(|e| above(&first.name, e))?;
            }
            return Err(wrong(format!(
                "the stores `{}` and `{}` are one and the same, or have changed their names",
                marker.store, child.name
            )));
        }
        if marker.set != leader.set {
            return Err(wrong(format!("the store `{}` belongs to another set of stores", child.name)));
        }
        all.push((child.backend.clone(), marker));
    }
    Marker::complete(all).await?;
    Ok(leader)
}

/// What is there already would not be found: it may lie in the wrong store.
pub(super) async fn is_empty(child: &Child) -> Result<()> {
    let some = async { child.backend.list(ListOptions::new().limit(1).etags(false)).await?.try_next().await };
    if some.await.map_err(|e| above(&child.name, e))?.is_some() {
        return Err(wrong(format!(
            "the store `{}` holds values already; a new set begins with empty stores",
            child.name
        )));
    }
    Ok(())
}

/// What all of the stores can do, and the smallest of their limits.
fn info(children: &[Child]) -> Result<BackendInfo> {
    let mut capabilities = KNOWN;
    let mut limits = Limits::default();
    limits.time_granularity = Duration::ZERO;
    let mut refused: Vec<KeyShape> = Vec::new();
    let mut consistency = Consistency::Shared;
    for child in children {
        let below = child.backend.info();
        capabilities = capabilities.and(below.capabilities);
        limits.key = limits.key.min(below.limits.key.saturating_sub(names::OVERHEAD));
        limits.value = limits.value.min(below.limits.value);
        limits.metadata = limits.metadata.min(below.limits.metadata);
        limits.time_granularity = limits.time_granularity.max(below.limits.time_granularity);
        if limits.key < Key::MIN_LIMIT {
            return Err(wrong(format!(
                "the store `{}` takes keys of at most {} bytes; {} more are needed",
                child.name,
                below.limits.key,
                Key::MIN_LIMIT - limits.key
            )));
        }
        if below.refused_keys.iter().any(|shape| shape.matches(names::MARKER)) {
            return Err(wrong(format!("the store `{}` refuses the key of the marker", child.name)));
        }
        for shape in &below.refused_keys {
            if !refused.contains(shape) {
                refused.push(*shape);
            }
        }
        if below.consistency != Consistency::Shared {
            consistency = Consistency::ProcessLocal;
        }
    }
    let mut info = BackendInfo::new("multi", capabilities);
    info.name = "Several stores, sharded".into();
    info.description = format!("Values spread over {} stores", children.len());
    info.version = env!("CARGO_PKG_VERSION").into();
    info.limits = limits;
    info.consistency = consistency;
    info.refused_keys = refused;
    Ok(info)
}
