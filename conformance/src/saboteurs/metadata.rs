//! Metadata, etags and dates that are not what was written.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    Body, Entry, Error, ErrorKind, FieldValue, GetOptions, Key, ListItem, ListOptions, ListStream, Metadata, Object,
    PutOptions, Result, StatOptions, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides},
};

table! {
    drops_metadata = Changes(|_, _| None) => [
        "batch/metadata_of_each_item",
        "cancellation/dropped_put_keeps_metadata_with_its_value",
        "concurrency/no_torn_reads",
        "conditional/update_stale",
        "copy/keeps_metadata",
        "copy/onto_itself_with_metadata",
        "counts/of_entries_with_metadata",
        "counts/of_tags_and_fields",
        "damaged/can_be_replaced_and_removed",
        "damaged/is_listed_as_such",
        "damaged/no_condition_holds",
        "damaged/queries_find_it_by_no_metadata",
        "damaged/values_of_others_are_ordinary",
        "entries/every_write_returns_its_entry",
        "filters/a_page_goes_on_without_its_last_entry",
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "metadata/accepted_is_kept",
        "metadata/listed_only_when_asked",
        "metadata/replaced_on_overwrite",
        "metadata/roundtrip_typed",
        "metadata/size_limit",
        "metadata/stat_list_get_agree",
        "metadata/weird_names_and_values",
        "model/random_calls",
        "names/alike_are_distinct_in_metadata",
        "names/fields_may_be_called_anything",
        "query/comparisons",
        "query/content_type",
        "query/injection_is_literal",
        "query/limits_and_continuation",
        "query/long_texts_and_tags",
        "query/missing_field_matches_nothing",
        "query/order_and_ties",
        "query/prefix",
        "query/random_vs_oracle",
        "query/tags",
        "query/typed_equality",
        "rename/keeps_metadata",
        "versioning/copy_restores",
        "versioning/listed_as_described",
        "versioning/old_can_be_read",
    ];
    forgets_metadata_of_streams = ForgetsOfStreams => ["entries/every_write_returns_its_entry", "metadata/accepted_is_kept"];
    floats_become_integers = Changes(|_, new| Some(whole_floats(new))) => [
        "copy/keeps_metadata",
        "damaged/can_be_replaced_and_removed",
        "damaged/no_condition_holds",
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "metadata/roundtrip_typed",
        "query/comparisons",
        "query/limits_and_continuation",
        "query/order_and_ties",
        "query/random_vs_oracle",
        "query/typed_equality",
    ];
    lowercases_names = Changes(|_, new| Some(lowercased(new))) => [
        "damaged/can_be_replaced_and_removed",
        "damaged/no_condition_holds",
        "metadata/weird_names_and_values",
        "names/alike_are_distinct_in_metadata",
        "names/fields_may_be_called_anything",
        "query/injection_is_literal",
    ];
    merges_metadata = Changes(|old, new| Some(merged(old, new))) => [
        "copy/keeps_metadata",
        "copy/onto_itself_with_metadata",
        "counts/of_tags_and_fields",
        "damaged/can_be_replaced_and_removed",
        "damaged/no_condition_holds",
        "entries/every_write_returns_its_entry",
        "metadata/replaced_on_overwrite",
        "metadata/roundtrip_typed",
        "metadata/size_limit",
        "metadata/weird_names_and_values",
        "rename/keeps_metadata",
        "versioning/listed_as_described",
        "versioning/old_can_be_read",
    ];
    a_field_called_content_type_is_one = Changes(|_, new| {
        let mut metadata = new.clone();
        if let Some(FieldValue::String(text)) = metadata.fields.remove("content_type") {
            metadata.content_type = Some(text);
        }
        Some(metadata)
    }) => ["damaged/can_be_replaced_and_removed", "damaged/no_condition_holds", "names/fields_may_be_called_anything"];
    small_metadata = SmallMetadata => ["counts/of_tags_and_fields", "metadata/size_limit"];
    empty_metadata_is_none = Shows(|entry, _| entry.metadata = entry.metadata.take().filter(|m| !m.is_empty())) => [
        "damaged/values_of_others_are_ordinary",
        "metadata/none_is_empty",
        "metadata/replaced_on_overwrite",
        "query/dates",
        "query/size_range",
        "versioning/listed_as_described",
    ];
    lists_no_date = Shows(|entry, listed| entry.modified = entry.modified.filter(|_| !listed)) => ["list/sort_size_modified", "metadata/stat_list_get_agree"];
    lists_no_size = Shows(|entry, listed| entry.size *= u64::from(!listed)) => ["counts/of_entries", "damaged/values_of_others_are_ordinary", "list/sort_size_modified", "metadata/stat_list_get_agree"];
    created_is_modified = Shows(|entry, _| entry.created = entry.modified) => [
        "entries/created_stays_whatever_writes",
        "entries/every_write_returns_its_entry",
        "entries/of_writes_in_a_transaction",
        "filters/a_page_goes_on_without_its_last_entry",
        "metadata/created_stays",
        "query/dates",
    ];
    always_lists_metadata = AlwaysListsMetadata => ["metadata/listed_only_when_asked"];
    clock_stands_still = ClockStandsStill => [
        "basic/put_returns_entry",
        "entries/every_write_returns_its_entry",
        "metadata/modified_is_the_time_of_the_write",
        "metadata/stat_list_get_agree",
        "versioning/listed_newest_first",
    ];
}

/// Stores other metadata, made of the old and the new.
#[derive(Debug)]
struct Changes(fn(&Metadata, &Metadata) -> Option<Metadata>);

#[async_trait]
impl Fault for Changes {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let old = s.inner.stat(key, StatOptions::new()).await?.and_then(|entry| entry.metadata).unwrap_or_default();
        let new = options.metadata.take().unwrap_or_default();
        options.metadata = (self.0)(&old, &new).map(Arc::new);
        s.inner.put(key, body, options).await
    }
}

/// A value that comes in pieces is stored without its metadata.
#[derive(Debug)]
struct ForgetsOfStreams;

#[async_trait]
impl Fault for ForgetsOfStreams {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        options.metadata = options.metadata.filter(|_| body.is_in_memory());
        s.inner.put(key, body, options).await
    }
}

fn whole_floats(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    for value in metadata.fields.values_mut() {
        if let FieldValue::Float(float) = value
            && float.fract() == 0.0
            && float.abs() < 1e15
        {
            *value = FieldValue::Int(*float as i64);
        }
    }
    metadata
}

fn lowercased(metadata: &Metadata) -> Metadata {
    let mut metadata = metadata.clone();
    let fields = std::mem::take(&mut metadata.fields);
    metadata.fields = fields.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    metadata
}

fn merged(old: &Metadata, new: &Metadata) -> Metadata {
    let mut metadata = old.clone();
    metadata.fields.extend(new.fields.clone());
    metadata.tags.extend(new.tags.iter().cloned());
    metadata.content_type = new.content_type.clone().or(metadata.content_type);
    metadata
}

#[derive(Debug)]
struct SmallMetadata;

#[async_trait]
impl Fault for SmallMetadata {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if options.metadata.as_ref().is_some_and(|metadata| metadata.size() > 999) {
            return Err(Error::new(ErrorKind::TooLarge, "the metadata is too large for a header"));
        }
        s.inner.put(key, body, options).await
    }
}

/// Reports another entry; the flag says whether it is listed.
#[derive(Debug)]
struct Shows(fn(&mut Entry, bool));

#[async_trait]
impl Fault for Shows {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let mut object = s.inner.get(key, options).await?;
        if let Some(object) = &mut object {
            (self.0)(&mut object.entry, false);
        }
        Ok(object)
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        let mut entry = s.inner.stat(key, options).await?;
        if let Some(entry) = &mut entry {
            (self.0)(entry, false);
        }
        Ok(entry)
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let show = self.0;
        let listing = s.inner.list(options).await?.map_ok(move |mut item| {
            if let ListItem::Entry(entry) = &mut item {
                show(entry, true);
            }
            item
        });
        Ok(listing.boxed())
    }
}

#[derive(Debug)]
struct AlwaysListsMetadata;

#[async_trait]
impl Fault for AlwaysListsMetadata {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        s.inner.list(options.metadata(true)).await
    }
}

/// All that is written was written at the same moment, long ago.
#[derive(Debug)]
struct ClockStandsStill;

#[async_trait]
impl Fault for ClockStandsStill {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let mut entry = s.inner.put(key, body, options).await?;
        entry.modified = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        Ok(entry)
    }
}
