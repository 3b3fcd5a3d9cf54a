//! Values that do not come back.

use std::{collections::HashMap, sync::Arc};

use futures_util::{FutureExt, TryStreamExt};
use storage_core::{
    Body, Bytes, Capabilities, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, ListOptions, Object,
    PutOptions, Result, StatOptions, StorageBackend, async_trait, defaults,
};
use tokio::sync::Mutex;

use super::{
    Saboteur, Sound, table,
    wrap::{Fault, Sides, listed, value, whole, wrap},
};

table! {
    truncates_large = TruncatesLarge => ["range/in_parallel", "basic/reopen_persists",
        "basic/roundtrip",
        "cancellation/dropped_copy_and_rename",
        "cancellation/dropped_put",
        "concurrency/racing_puts_leave_one_whole",
        "copy/does_not_alias",
        "copy/onto_itself",
        "copy/replaces_the_target",
        "entries/every_write_returns_its_entry",
        "errors/value_too_large",
        "faults/short_body",
        "range/random_of_a_large_value",
        "rename/moves",
        "rename/onto_itself",
        "sizes/of_pieces",
        "sizes/of_ranges",
        "sizes/of_streams_in_pieces",
        "sizes/of_values",
        "stream/chunked_equals_whole",
        "stream/conditional",
        "stream/declared_length",
        "stream/one_version_per_stream",
        "stream/pipe",
        "stream/read_in_pieces",
        "versioning/old_can_be_read",
        "versioning/ranges_are_its_own",
    ];
    empty_is_absence = EmptyIsAbsence => [
        "basic/empty_value",
        "basic/overwrite",
        "copy/onto_itself",
        "range/of_an_empty_value",
        "rename/moves",
        "stream/declared_length",
        "stream/empty_pieces",
        "versioning/old_can_be_read",
        "versioning/ranges_are_its_own",
    ];
    zeroes_are_holes = ZeroesAreHoles => [
        "basic/all_byte_values",
        "concurrency/racing_puts_leave_one_whole",
        "sizes/of_values",
        "stream/one_version_per_stream",
    ];
    overwrites_in_place = OverwritesInPlace => [
        "basic/all_byte_values",
        "basic/keys_are_independent",
        "basic/overwrite",
        "concurrency/linearizable_history",
        "concurrency/no_torn_reads",
        "concurrency/racing_puts_leave_one_whole",
        "conditional/update_race_one_winner",
        "copy/does_not_alias",
        "copy/onto_itself",
        "damaged/can_be_replaced_and_removed",
        "damaged/no_condition_holds",
        "damaged/values_of_others_are_ordinary",
        "entries/every_write_returns_its_entry",
        "stream/conditional",
        "stream/consumer_drop_releases",
        "versioning/listed_as_described",
        "versioning/old_can_be_read",
        "versioning/ranges_are_its_own",
    ];
    missing_is_an_error = MissingIsAnError => [
        "basic/acknowledged_is_visible",
        "basic/delete_idempotent",
        "basic/delete_removes",
        "basic/keys_are_independent",
        "basic/missing_is_none",
        "cancellation/dropped_batch",
        "cancellation/dropped_commit",
        "cancellation/dropped_copy_and_rename",
        "cancellation/dropped_delete",
        "cancellation/dropped_put",
        "cancellation/dropped_reads",
        "cancellation/dropped_stream_put",
        "concurrency/linearizable_history",
        "conditional/conditional_delete",
        "conditional/delete_race_one_winner",
        "conditional/read_conditions",
        "damaged/can_be_replaced_and_removed",
        "damaged/values_of_others_are_ordinary",
        "errors/unsupported_is_explicit",
        "faults/fail_after",
        "faults/fail_before",
        "keys/traversal_confined",
        "list/no_staging_visible",
        "names/a_key_is_one_key",
        "presign/content_is_bound",
        "presign/only_what_was_signed",
        "presign/reads",
        "presign/writes",
        "range/beyond_end",
        "rename/conditional",
        "rename/moves",
        "stream/body_error_stores_nothing",
        "stream/consumer_drop_releases",
        "stream/wrong_length_stores_nothing",
        "transactions/delete_conflict",
        "transactions/drop_rolls_back",
        "transactions/failed_work_rolls_back",
        "transactions/invisible_before_commit",
        "transactions/rollback_forgets",
        "versioning/clear_hides_and_keeps",
        "versioning/delete_hides_and_keeps",
        "versioning/missing_is_none",
        "versioning/old_can_be_deleted",
    ];
    delete_of_missing_fails = DeleteOfMissingFails => [
        "basic/delete_idempotent",
        "basic/keys_are_independent",
        "concurrency/linearizable_history",
        "damaged/can_be_replaced_and_removed",
        "entries/every_write_returns_its_entry",
        "entries/of_writes_in_a_transaction",
        "faults/fail_after",
        "faults/fail_before",
        "keys/traversal_confined",
        "names/a_key_is_one_key",
    ];
    deletes_what_begins_so = DeletesWhatBeginsSo => [
        "basic/delete_removes",
        "basic/keys_are_independent",
        "names/a_key_is_one_key",
        "names/alike_are_distinct_keys",
    ];
    returns_another_size = ReturnsAnotherSize => [
        "basic/empty_value",
        "basic/put_returns_entry",
        "entries/every_write_returns_its_entry",
        "metadata/stat_list_get_agree",
        "sizes/of_pieces",
        "sizes/of_streams_in_pieces",
        "sizes/of_values",
        "stream/chunked_equals_whole",
        "stream/declared_length",
        "versioning/listed_newest_first",
    ];
    stale_cache = StaleCache::default() => ["basic/acknowledged_is_visible", "concurrency/linearizable_history", "faults/short_body", "readonly/reads_are_as_ever", "transactions/invisible_before_commit"];
}

/// What was written last before an instance is opened is gone.
pub(super) const LOSES_THE_TAIL: Saboteur = Saboteur {
    group: module_path!(),
    name: "loses_the_tail_on_recovery",
    catches: &[
        "basic/reopen_persists",
        "damaged/is_listed_as_such",
        "damaged/no_condition_holds",
        "damaged/queries_find_it_by_no_metadata",
        "damaged/reads_are_corrupt",
        "damaged/values_of_others_are_ordinary",
        "lifecycle/disconnect_is_final",
    ],
    pins: Capabilities::new(),
    base: super::Base::Memory,
    wrap: |inner, _| {
        // The store below never waits.
        let _ = recover(&inner).now_or_never();
        wrap(inner, Sound)
    },
};

async fn recover(inner: &Arc<dyn StorageBackend>) -> Result<()> {
    let entries: Vec<Entry> = defaults::entries(inner.list(ListOptions::new()).await?).try_collect().await?;
    match entries.iter().max_by_key(|entry| entry.modified) {
        Some(last) => inner.delete(&last.key, DeleteOptions::new()).await,
        None => Ok(()),
    }
}

#[derive(Debug)]
struct TruncatesLarge;

#[async_trait]
impl Fault for TruncatesLarge {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        s.inner.put(key, bytes.slice(..bytes.len().min(65_536)).into(), options).await
    }
}

#[derive(Debug)]
struct EmptyIsAbsence;

#[async_trait]
impl Fault for EmptyIsAbsence {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        Ok(s.inner.get(key, options).await?.filter(|object| object.entry.size > 0))
    }
}

#[derive(Debug)]
struct ZeroesAreHoles;

#[async_trait]
impl Fault for ZeroesAreHoles {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        s.inner.put(key, bytes.slice(..end).into(), options).await
    }
}

#[derive(Debug)]
struct OverwritesInPlace;

#[async_trait]
impl Fault for OverwritesInPlace {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut bytes = whole(body).await?.to_vec();
        if let Some(old) = value(s, key).await?
            && old.len() > bytes.len()
        {
            bytes.extend_from_slice(&old[bytes.len()..]);
        }
        s.inner.put(key, bytes.into(), options).await
    }
}

#[derive(Debug)]
struct MissingIsAnError;

#[async_trait]
impl Fault for MissingIsAnError {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = s.inner.get(key, options).await?;
        found.map(Some).ok_or_else(|| Error::new(ErrorKind::NotFound, "the key does not exist"))
    }
}

#[derive(Debug)]
struct DeleteOfMissingFails;

#[async_trait]
impl Fault for DeleteOfMissingFails {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if options == DeleteOptions::new() && s.inner.stat(key, StatOptions::new()).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, "the key does not exist"));
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct DeletesWhatBeginsSo;

#[async_trait]
impl Fault for DeletesWhatBeginsSo {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        for item in listed(s, ListOptions::new().prefix(key.as_str())).await? {
            let longer = item.position() > key.as_str() && !item.position()[key.as_str().len()..].contains('/');
            if let Some(entry) = item.into_entry().filter(|_| longer && options == DeleteOptions::new()) {
                s.inner.delete(&entry.key, DeleteOptions::new()).await?;
            }
        }
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct ReturnsAnotherSize;

#[async_trait]
impl Fault for ReturnsAnotherSize {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.size += 1;
        Ok(entry)
    }
}

/// Never hears of what other instances write.
#[derive(Debug, Default)]
struct StaleCache {
    cached: Mutex<HashMap<Key, (Entry, Bytes)>>,
}

#[async_trait]
impl Fault for StaleCache {
    const DERIVED: bool = true;

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        if options.clone().prefer_buffered(false).entry(true) != GetOptions::new() {
            return s.inner.get(key, options).await;
        }
        // Held while it loads, so that an own write cannot come in between.
        let mut cached = self.cached.lock().await;
        if let Some((entry, bytes)) = cached.get(key) {
            return Ok(Some(Object::new(entry.clone(), bytes.clone())));
        }
        let Some(object) = s.inner.get(key, options).await? else { return Ok(None) };
        let bytes = whole(object.body).await?;
        cached.insert(key.clone(), (object.entry.clone(), bytes.clone()));
        Ok(Some(Object::new(object.entry, bytes)))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let body = whole(body).await?;
        let mut cached = self.cached.lock().await;
        cached.remove(key);
        s.inner.put(key, body.into(), options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        let mut cached = self.cached.lock().await;
        cached.remove(key);
        s.inner.delete(key, options).await
    }
}
