//! How the stores are looked at and taken into a set, and which of them count.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{TryStreamExt, future::join_all};
use storage_config::{Clock, StorageContext, SystemClock};
use storage_core::{
    BackendInfo, Capabilities, Consistency, Error, ErrorKind, Key, Limits, ListOptions, Metadata, Result,
    StorageBackend, async_trait, pending::Writes,
};
use tokio::runtime::Handle;

use super::{
    Inner, Redundant,
    child::{Child, Locks},
    quorum::Hedges,
    record,
};
use crate::{
    Config, Store, Strategy,
    error::{above, wrong},
    marker::Marker,
    names,
};

/// The name of the strategy.
const NAME: &str = "redundant";
/// How long what stands for a deleted value is kept, unless said otherwise.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// And at least: longer than any call takes.
const SHORTEST: Duration = Duration::from_secs(60 * 60);

/// Makes [`Redundant`] of stores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Redundancy;

#[async_trait]
impl Strategy for Redundancy {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn open(
        &self,
        stores: Vec<Store>,
        config: &Config,
        context: &StorageContext,
    ) -> Result<Arc<dyn StorageBackend>> {
        let mut options = RedundantOptions::new().clock(context.clock.clone());
        options.write_quorum = config.write_quorum;
        options.tombstone_lifetime = config.tombstone_lifetime.map_or(LIFETIME, Duration::from_secs);
        Ok(Arc::new(Redundant::open(stores, options).await?))
    }
}

/// How [`Redundant`] works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedundantOptions {
    /// How many stores must have a write before it is acknowledged; more than half of them unless set. A read asks so many that one of them
    /// has it.
    pub write_quorum: Option<usize>,
    /// How long what stands for a deleted value is kept at least; a week unless set. A repair removes it after that, once every store has it.
    pub tombstone_lifetime: Duration,
    /// Tells the time of writes.
    pub clock: Arc<dyn Clock>,
}

impl Default for RedundantOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl RedundantOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self { write_quorum: None, tombstone_lifetime: LIFETIME, clock: Arc::new(SystemClock) }
    }

    /// How many stores must have a write before it is acknowledged.
    #[must_use]
    pub fn write_quorum(mut self, stores: usize) -> Self {
        self.write_quorum = Some(stores);
        self
    }

    /// How long what stands for a deleted value is kept at least.
    #[must_use]
    pub fn tombstone_lifetime(mut self, lifetime: Duration) -> Self {
        self.tombstone_lifetime = lifetime;
        self
    }

    /// Tells the time of writes.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

/// A store, its backend and its marker, or why it cannot be reached.
type Looked = (Store, Result<(Arc<dyn StorageBackend>, Option<Marker>)>);

impl Redundant {
    /// Opens the stores, which must be those that the set was made of, in any order, or empty ones that become a new set. Each gets a
    /// marker. Of a set that is there, some may be unreachable: as many as a read or write can do without.
    ///
    /// # Errors
    /// `Config` for stores that are not the set's, that hold values already, that are one and the same, or that lack what is needed, and for a
    /// quorum of more stores than there are; `Unavailable` when too few can be reached; those of the stores.
    ///
    /// # Panics
    /// Outside of a tokio runtime, in which its writes run.
    pub async fn open(mut stores: Vec<Store>, options: RedundantOptions) -> Result<Self> {
        stores.sort_by(|a, b| a.name().cmp(b.name()));
        let count = stores.len();
        if stores.windows(2).any(|pair| pair[0].name() == pair[1].name()) {
            return Err(wrong("two stores have the same name; give each its own"));
        }
        if stores.iter().any(|store| store.weight() != 1) {
            return Err(wrong("every store has every value in the strategy `redundant`; leave weights out"));
        }
        let write_quorum = options.write_quorum.unwrap_or(count / 2 + 1);
        if count == 0 || !(1..=count).contains(&write_quorum) {
            return Err(wrong(format!("the write quorum must be at least 1 and at most the {count} stores")));
        }
        if options.tombstone_lifetime < SHORTEST {
            return Err(wrong("`tombstone_lifetime` must be at least an hour"));
        }
        let read_quorum = count + 1 - write_quorum;
        let looked = join_all(stores.into_iter().map(look)).await;
        let reached: Vec<_> =
            looked.iter().filter_map(|(store, found)| Some((store, &found.as_ref().ok()?.0))).collect();
        if reached.len() < read_quorum {
            let why = looked.into_iter().find_map(|(_, found)| found.err());
            return Err(why.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "too few stores can be reached")));
        }
        let info = info(&reached, count)?;
        let (marker, fenced) = join(&looked).await?;
        let children = looked
            .into_iter()
            .zip(fenced)
            .map(|((store, found), fenced)| Arc::new(Child::new(store, marker.set.clone(), fenced, found.is_ok())));
        let inner = Inner {
            info,
            children: children.collect(),
            marker,
            write_quorum,
            read_quorum,
            runtime: Handle::current(),
            writes: Writes::new(),
            locks: Locks::default(),
            hedges: Hedges::new(),
            tombstone_lifetime: options.tombstone_lifetime,
            clock: options.clock,
            node: fastrand::u64(1..),
            last: Mutex::new(0),
        };
        Ok(Self(Arc::new(inner)))
    }
}

async fn look(store: Store) -> Looked {
    let found = async {
        let backend = store.backend().await?.clone();
        let marker = Marker::read(&backend).await.map_err(|e| above(store.name(), e))?;
        Ok((backend, marker))
    };
    let found: Result<_> = found.await;
    (store, found)
}

/// The marker of the set, and which stores are fenced.
async fn join(looked: &[Looked]) -> Result<(Marker, Vec<bool>)> {
    let layout: Vec<(String, u32)> = looked.iter().map(|(store, _)| (store.name().to_string(), 1)).collect();
    // What is wrong in the configuration stays wrong.
    if let Some(e) = looked.iter().find_map(|(_, found)| found.as_ref().err().filter(|e| e.kind() == ErrorKind::Config))
    {
        return Err(e.clone());
    }
    let (first, first_found) = &looked[0];
    let there = looked.iter().find_map(|(_, found)| found.as_ref().ok()?.1.clone());
    let leader = match (there, first_found) {
        (Some(marker), _) => marker,
        (None, first_found) => {
            for (store, found) in looked {
                let (backend, _) = found.as_ref().map_err(Clone::clone)?;
                is_empty(store, backend).await?;
            }
            let (backend, _) = first_found.as_ref().map_err(Clone::clone)?;
            let marker = Marker::new(NAME, first.name(), layout.clone());
            marker.claim(backend).await.map_err(|e| above(first.name(), e))?
        }
    };
    if leader.strategy != NAME {
        return Err(wrong(format!("the stores belong to a set of the strategy `{}`", leader.strategy)));
    }
    if leader.layout != layout {
        let names = leader.layout.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(wrong(format!("the set is of the stores {names}; open it with these")));
    }
    let mut found_markers = looked.iter().filter_map(|(_, found)| found.as_ref().ok()?.1.as_ref());
    let unfinished = !found_markers.any(|marker| marker.complete);
    let (mut fenced, mut all) = (Vec::new(), Vec::new());
    for (store, found) in looked {
        let Ok((backend, marker)) = found else {
            fenced.push(false);
            continue;
        };
        let marker = match marker {
            Some(marker) => marker.clone(),
            None if unfinished && leader.store == **store.name() => leader.clone(),
            None if unfinished => {
                leader.beside(store.name()).claim(backend).await.map_err(|e| above(store.name(), e))?
            }
            None => {
                fenced.push(true);
                continue;
            }
        };
        if marker.set != leader.set {
            return Err(wrong(format!("the store `{}` belongs to another set of stores", store.name())));
        }
        if marker.store != **store.name() {
            if unfinished && let Ok((backend, _)) = first_found {
                // So that the stores can be told apart at the next try.
                Marker::remove(backend).await.map_err(|e| above(first.name(), e))?;
            }
            let (one, other) = (&marker.store, store.name());
            return Err(wrong(format!(
                "the stores `{one}` and `{other}` are one and the same, or have changed their names"
            )));
        }
        fenced.push(false);
        all.push((backend.clone(), marker));
    }
    if all.len() == looked.len() {
        Marker::complete(all).await?;
    }
    Ok((leader, fenced))
}

/// What is there already would be in one store only.
async fn is_empty(store: &Store, backend: &Arc<dyn StorageBackend>) -> Result<()> {
    let some = async { backend.list(ListOptions::new().limit(1).etags(false)).await?.try_next().await };
    if some.await.map_err(|e| above(store.name(), e))?.is_some() {
        let name = store.name();
        return Err(wrong(format!("the store `{name}` holds values already; a new set begins with empty stores")));
    }
    Ok(())
}

/// What the stores that can be reached can do together, and the smallest of their limits.
fn info(reached: &[(&Store, &Arc<dyn StorageBackend>)], count: usize) -> Result<BackendInfo> {
    let mut capabilities = Capabilities::new().atomic().streaming().encryption().compression();
    let mut limits = Limits::default();
    for (store, backend) in reached {
        let (name, below) = (store.name(), backend.info());
        if !below.capabilities.conditional {
            return Err(wrong(format!(
                "the store `{name}` has no conditional writes, without which a late write could replace a newer one"
            )));
        }
        if below.refused_keys.iter().any(|shape| shape.matches(names::MARKER)) {
            return Err(wrong(format!("the store `{name}` refuses the key of the marker")));
        }
        if !below.refused_keys.is_empty() || below.limits.metadata < Metadata::MIN_LIMIT + record::OVERHEAD {
            return Err(wrong(format!("the store `{name}` keeps too little metadata, or refuses keys")));
        }
        capabilities = capabilities.and(below.capabilities);
        limits.key = limits.key.min(below.limits.key.saturating_sub(names::OVERHEAD));
        limits.value = limits.value.min(below.limits.value);
        limits.metadata = limits.metadata.min(below.limits.metadata - record::OVERHEAD);
        if limits.key < Key::MIN_LIMIT {
            return Err(wrong(format!("the store `{name}` takes keys of too few bytes")));
        }
    }
    limits.time_granularity = Duration::from_micros(1);
    capabilities = capabilities.version_etags();
    if count > 1 {
        capabilities = capabilities.distributed();
    }
    let mut info = BackendInfo::new("multi", capabilities);
    info.name = "Several stores, redundant".into();
    info.description = format!("Every value in each of {count} stores");
    info.version = env!("CARGO_PKG_VERSION").into();
    info.limits = limits;
    info.consistency = Consistency::ProcessLocal;
    Ok(info)
}
