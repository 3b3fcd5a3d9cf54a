//! What goes wrong around the operations: writes in two steps, errors, information, connections, tasks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use storage_core::{
    BackendInfo, Body, Capabilities, CopyOptions, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Object,
    PutOptions, Result, StatOptions, Transaction, async_trait,
};

use super::{
    Saboteur, table,
    wrap::{Fault, Sides, pause, value, whole, wrap},
};
use crate::support::locked;

table! {
    deletes_before_it_writes = DeletesFirst => [
        "cancellation/dropped_put",
        "cancellation/dropped_put_keeps_metadata_with_its_value",
        "concurrency/linearizable_history",
        "concurrency/no_torn_reads",
        "concurrency/read_during_replace",
        "damaged/can_be_replaced_and_removed",
        "damaged/no_condition_holds",
        "entries/created_stays_whatever_writes",
        "faults/fail_after",
        "faults/fail_before",
        "metadata/created_stays",
    ];
    metadata_follows_later = MetadataFollows => ["cancellation/dropped_put_keeps_metadata_with_its_value", "concurrency/no_torn_reads"];
    writes_in_place = WritesInPlace => ["cancellation/dropped_batch", "cancellation/dropped_copy_and_rename", "cancellation/dropped_put", "cancellation/dropped_put_keeps_metadata_with_its_value", "concurrency/linearizable_history", "concurrency/no_torn_reads", "concurrency/racing_puts_leave_one_whole", "damaged/can_be_replaced_and_removed", "faults/fail_after", "faults/fail_before"];
    empties_before_it_deletes = EmptiesFirst => ["cancellation/dropped_delete", "concurrency/linearizable_history", "damaged/can_be_replaced_and_removed", "faults/fail_after", "faults/fail_before"];
    everything_is_ambiguous = EverythingIsAmbiguous => ["errors/conditions_taxonomy", "errors/taxonomy", "readonly/writes_are_denied"];
    begins_undeclared = BeginsUndeclared => [
        "batch/atomic_all_or_nothing",
        "batch/atomic_form",
        "batch/atomic_with_much_metadata",
        "cancellation/dropped_commit",
        "entries/of_writes_in_a_transaction",
        "errors/unsupported_is_explicit",
        "transactions/all_or_nothing",
        "transactions/closed_after_its_end",
        "transactions/commit_makes_all_visible",
        "transactions/conditions_within",
        "transactions/counter_loses_no_update",
        "transactions/delete_conflict",
        "transactions/drop_rolls_back",
        "transactions/entries_survive_commit",
        "transactions/failed_work_rolls_back",
        "transactions/invisible_before_commit",
        "transactions/many_writes",
        "transactions/own_writes_are_seen",
        "transactions/reads_are_repeatable",
        "transactions/rollback_forgets",
        "transactions/serializable_excludes_write_skew",
        "transactions/streams_within",
        "transactions/write_conflict",
    ];
    disconnects_in_name_only = DisconnectsInNameOnly::default() => ["errors/closed_after_disconnect"];
    disconnects_everybody = DisconnectsEverybody => ["lifecycle/disconnect_is_final"];
    never_connected = NeverConnected => ["lifecycle/connected"];
    has_no_version = Declares(|info| info.version.clear()) => ["info/is_complete"];
    leaves_tasks_behind = LeavesTasks => ["lifecycle/drop_leaks_no_task"];
}

/// Takes back a capability that the target pins.
pub(super) const TAKES_BACK: Saboteur = Saboteur {
    group: module_path!(),
    name: "takes_back_a_capability",
    catches: &["info/required_capabilities"],
    pins: Capabilities::new().atomic().conditional(),
    base: super::Base::Memory,
    wrap: |inner, _| wrap(inner, Declares(|info| info.capabilities.atomic = false)),
};

/// Allows six connections, and notices at the first write that there are more.
pub(super) const SIX_CONNECTIONS: Saboteur = Saboteur {
    group: module_path!(),
    name: "six_connections",
    catches: &["lifecycle/instances_at_once"],
    pins: Capabilities::new(),
    base: super::Base::Memory,
    wrap: |inner, namespace| {
        let mut open = locked(&CONNECTIONS);
        let open = open.get_or_insert_default().entry(namespace.name().to_owned()).or_default().clone();
        wrap(inner, SixConnections { open })
    },
};

/// The first instance of a store declares another limit than later ones.
pub(super) const DECLARES_BY_CHANCE: Saboteur = Saboteur {
    group: module_path!(),
    name: "declares_by_chance",
    catches: &["info/is_stable"],
    pins: Capabilities::new(),
    base: super::Base::Memory,
    wrap: |inner, namespace| {
        let mut seen = locked(&SEEN);
        if seen.insert(namespace.name().to_owned()) {
            return wrap(inner, Declares(|info| info.limits.metadata -= 1));
        }
        Box::pin(std::future::ready(Ok(inner)))
    },
};

static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

static CONNECTIONS: Mutex<Option<HashMap<String, Arc<()>>>> = Mutex::new(None);

#[derive(Debug)]
struct SixConnections {
    open: Arc<()>,
}

#[async_trait]
impl Fault for SixConnections {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        // One more is held by the table of all.
        if Arc::strong_count(&self.open) > 7 {
            return Err(Error::new(ErrorKind::Unavailable, "too many connections"));
        }
        s.inner.put(key, body, options).await
    }
}

/// Without versions, which would show the two steps for what they are.
fn in_two_steps(info: &mut BackendInfo) {
    info.capabilities.versioning = false;
}

#[derive(Debug)]
struct DeletesFirst;

#[async_trait]
impl Fault for DeletesFirst {
    fn declare(&self, info: &mut BackendInfo) {
        in_two_steps(info);
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let there = s.inner.stat(key, StatOptions::new()).await?.is_some();
        if there && options.condition.is_none() {
            s.inner.delete(key, DeleteOptions::new()).await?;
            pause().await;
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

#[derive(Debug)]
struct MetadataFollows;

#[async_trait]
impl Fault for MetadataFollows {
    fn declare(&self, info: &mut BackendInfo) {
        in_two_steps(info);
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let metadata = options.metadata.take();
        let written = s.inner.put(key, body, options).await?;
        let Some(metadata) = metadata else { return Ok(written) };
        pause().await;
        s.inner.copy(key, key, CopyOptions::new().metadata(metadata)).await
    }
}

/// The first half, then the second, each into whatever is there.
#[derive(Debug)]
struct WritesInPlace;

#[async_trait]
impl Fault for WritesInPlace {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        in_two_steps(info);
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let new = whole(body).await?;
        if new.len() < 2 || options.condition.is_some() {
            return s.inner.put(key, new.into(), options).await;
        }
        let half = new.len() / 2;
        if let Some(old) = value(s, key).await? {
            let mixed = [&new[..half], old.get(half..).unwrap_or_default()].concat();
            s.inner.put(key, mixed.into(), options.clone()).await?;
            pause().await;
        }
        let first = value(s, key).await?.filter(|first| first.len() >= half).unwrap_or_else(|| new.clone());
        s.inner.put(key, [&first[..half], &new[half..]].concat().into(), options).await
    }
}

#[derive(Debug)]
struct EmptiesFirst;

#[async_trait]
impl Fault for EmptiesFirst {
    fn declare(&self, info: &mut BackendInfo) {
        in_two_steps(info);
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options == DeleteOptions::new() && s.inner.stat(key, StatOptions::new()).await?.is_some() {
            s.inner.put(key, "".into(), PutOptions::new()).await?;
            pause().await;
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct EverythingIsAmbiguous;

#[async_trait]
impl Fault for EverythingIsAmbiguous {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        s.inner.get(key, options).await.map_err(Error::ambiguous)
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        s.inner.put(key, body, options).await.map_err(Error::ambiguous)
    }
}

#[derive(Debug)]
struct BeginsUndeclared;

#[async_trait]
impl Fault for BeginsUndeclared {
    fn declare(&self, info: &mut BackendInfo) {
        info.capabilities.transactions = false;
    }

    async fn begin(&self, s: Sides<'_>) -> Result<Arc<dyn Transaction>> {
        s.inner.begin().await
    }
}

/// Says that it is closed, and works on.
#[derive(Debug, Default)]
struct DisconnectsInNameOnly(AtomicBool);

#[async_trait]
impl Fault for DisconnectsInNameOnly {
    async fn health(&self, s: Sides<'_>) -> Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(Error::closed()) } else { s.inner.health().await }
    }

    async fn disconnect(&self, _: Sides<'_>) -> Result<()> {
        self.0.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug)]
struct DisconnectsEverybody;

#[async_trait]
impl Fault for DisconnectsEverybody {
    async fn disconnect(&self, s: Sides<'_>) -> Result<()> {
        s.inner.disconnect().await
    }
}

#[derive(Debug)]
struct NeverConnected;

#[async_trait]
impl Fault for NeverConnected {
    async fn health(&self, _: Sides<'_>) -> Result<()> {
        Err(Error::new(ErrorKind::Unavailable, "not connected"))
    }
}

#[derive(Debug)]
struct Declares(fn(&mut BackendInfo));

#[async_trait]
impl Fault for Declares {
    fn declare(&self, info: &mut BackendInfo) {
        (self.0)(info);
    }
}

#[derive(Debug)]
struct LeavesTasks;

#[async_trait]
impl Fault for LeavesTasks {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        tokio::spawn(std::future::pending::<()>());
        s.inner.put(key, body, options).await
    }
}
