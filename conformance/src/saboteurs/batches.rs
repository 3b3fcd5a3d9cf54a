//! Batches that are not what single operations would be.

use storage_core::{
    BatchOptions, Body, DeleteOptions, Entry, Error, ErrorKind, GetOptions, Key, Object, PutOptions, Result,
    async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides},
};

table! {
    batch_results_reversed = ResultsReversed => [
        "batch/order_preserved",
        "batch/over_native_limit_2500",
        "counts/of_entries",
        "damaged/reads_are_corrupt",
        "sizes/of_items",
    ];
    batch_first_wins = FirstWins => ["batch/duplicates_last_wins"];
    batch_stops_at_a_failure = StopsAtAFailure => ["batch/conditions_of_each_item", "batch/per_item_failure", "readonly/writes_are_denied"];
    batch_drops_over_a_thousand = DropsOverAThousand => [
        "batch/over_native_limit_2500",
        "clear/many",
        "counts/of_entries",
        "counts/of_entries_with_metadata",
        "list/ten_thousand_no_loss_no_duplicates",
    ];
    batch_refuses_nothing = RefusesNothing => ["batch/empty"];
    batch_shares_metadata = SharesMetadata => [
        "batch/atomic_with_much_metadata",
        "batch/metadata_of_each_item",
        "counts/of_entries_with_metadata",
        "counts/of_tags_and_fields",
        "filters/a_page_goes_on_without_its_last_entry",
        "filters/all_of_them_hold",
        "filters/numbers_to_the_last_bit",
        "names/alike_are_distinct_in_metadata",
        "names/fields_may_be_called_anything",
        "query/comparisons",
        "query/content_type",
        "query/injection_is_literal",
        "query/limits_and_continuation",
        "query/long_texts_and_tags",
        "query/missing_field_matches_nothing",
        "query/order_and_ties",
        "query/random_vs_oracle",
        "query/tags",
        "query/typed_equality",
    ];
    batch_is_not_atomic = NotAtomic => ["batch/atomic_all_or_nothing", "batch/atomic_with_much_metadata"];
    batch_in_steps_of_a_hundred = InSteps => ["batch/atomic_with_much_metadata"];
    batch_deletes_until_missing = DeletesUntilMissing => ["batch/conditions_of_each_delete", "batch/deletes", "batch/duplicates_last_wins", "damaged/can_be_replaced_and_removed"];
    batch_ignores_conditions = IgnoresConditions => ["batch/conditions_of_each_item"];
    batch_refuses_duplicates_if_atomic = RefusesDuplicates => ["batch/atomic_form"];
}

type Puts = Vec<(Key, Body, PutOptions)>;

#[derive(Debug)]
struct ResultsReversed;

#[async_trait]
impl Fault for ResultsReversed {
    async fn get_batch(&self, s: Sides<'_>, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let mut results = s.inner.get_batch(items).await?;
        results.reverse();
        Ok(results)
    }
}

#[derive(Debug)]
struct FirstWins;

#[async_trait]
impl Fault for FirstWins {
    async fn put_batch(&self, s: Sides<'_>, mut items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        if options.atomic {
            return s.inner.put_batch(items, options).await;
        }
        items.reverse();
        let mut results = s.inner.put_batch(items, options).await?;
        results.reverse();
        Ok(results)
    }
}

#[derive(Debug)]
struct StopsAtAFailure;

#[async_trait]
impl Fault for StopsAtAFailure {
    async fn put_batch(&self, s: Sides<'_>, items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        if options.atomic {
            return s.inner.put_batch(items, options).await;
        }
        let (mut results, mut failed) = (Vec::new(), false);
        for (key, body, options) in items {
            let stopped = || Error::new(ErrorKind::Other, "an earlier item failed");
            let result = if failed { Err(stopped()) } else { s.inner.put(&key, body, options).await };
            failed |= result.is_err();
            results.push(result);
        }
        Ok(results)
    }
}

#[derive(Debug)]
struct DropsOverAThousand;

#[async_trait]
impl Fault for DropsOverAThousand {
    async fn put_batch(&self, s: Sides<'_>, items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        let (mut items, mut dropped) = (items, Vec::new());
        if items.len() > 1000 {
            dropped = items.split_off(1000);
        }
        let mut results = s.inner.put_batch(items, options).await?;
        results.extend(dropped.into_iter().map(|(key, body, _)| Ok(Entry::new(key, body.len().unwrap_or(0)))));
        Ok(results)
    }
}

#[derive(Debug)]
struct RefusesNothing;

#[async_trait]
impl Fault for RefusesNothing {
    async fn put_batch(&self, s: Sides<'_>, items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        if items.is_empty() && !options.atomic {
            return Err(Error::new(ErrorKind::InvalidInput, "a request needs at least one item"));
        }
        s.inner.put_batch(items, options).await
    }
}

#[derive(Debug)]
struct SharesMetadata;

#[async_trait]
impl Fault for SharesMetadata {
    async fn put_batch(&self, s: Sides<'_>, mut items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        let first = items.iter().find_map(|(_, _, options)| options.metadata.clone());
        items.iter_mut().for_each(|(_, _, options)| options.metadata.clone_from(&first));
        s.inner.put_batch(items, options).await
    }
}

#[derive(Debug)]
struct NotAtomic;

#[async_trait]
impl Fault for NotAtomic {
    async fn put_batch(&self, s: Sides<'_>, items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        if !options.atomic {
            return s.inner.put_batch(items, options).await;
        }
        let mut results = Vec::new();
        for (key, body, options) in items {
            results.push(Ok(s.inner.put(&key, body, options).await?));
        }
        Ok(results)
    }
}

/// Each hundred items of an atomic batch are written, all or nothing, before the next are looked at.
#[derive(Debug)]
struct InSteps;

#[async_trait]
impl Fault for InSteps {
    async fn put_batch(&self, s: Sides<'_>, mut items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        let mut results = Vec::new();
        while options.atomic && items.len() > 100 {
            let rest = items.split_off(100);
            results.extend(s.inner.put_batch(std::mem::replace(&mut items, rest), options.clone()).await?);
        }
        results.extend(s.inner.put_batch(items, options).await?);
        Ok(results)
    }
}

#[derive(Debug)]
struct DeletesUntilMissing;

#[async_trait]
impl Fault for DeletesUntilMissing {
    async fn delete_batch(
        &self,
        s: Sides<'_>,
        items: Vec<(Key, DeleteOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<()>>> {
        if options.atomic {
            return s.inner.delete_batch(items, options).await;
        }
        let (mut results, mut missing) = (Vec::new(), false);
        for (key, options) in items {
            missing |= s.inner.stat(&key, storage_core::StatOptions::new()).await?.is_none();
            results.push(if missing { Ok(()) } else { s.inner.delete(&key, options).await });
        }
        Ok(results)
    }
}

#[derive(Debug)]
struct IgnoresConditions;

#[async_trait]
impl Fault for IgnoresConditions {
    async fn put_batch(&self, s: Sides<'_>, mut items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        items.iter_mut().for_each(|(_, _, options)| options.condition = None);
        s.inner.put_batch(items, options).await
    }
}

#[derive(Debug)]
struct RefusesDuplicates;

#[async_trait]
impl Fault for RefusesDuplicates {
    async fn put_batch(&self, s: Sides<'_>, items: Puts, options: BatchOptions) -> Result<Vec<Result<Entry>>> {
        let mut seen: Vec<&Key> = items.iter().map(|(key, ..)| key).collect();
        seen.sort();
        seen.dedup();
        if options.atomic && seen.len() < items.len() {
            return Err(Error::new(ErrorKind::InvalidInput, "a transaction cannot write a key twice"));
        }
        s.inner.put_batch(items, options).await
    }
}
