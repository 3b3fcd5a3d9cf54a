//! Conditions that are not checked, or checked too early, and etags that come again.

use futures_util::{StreamExt, TryStreamExt};
use storage_core::{
    Body, Condition, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, ListItem, ListOptions, ListStream,
    Object, PutOptions, Result, StatOptions, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, pause, streamed, whole},
};

table! {
    creates_again = Drops(|condition| matches!(condition, Condition::IfAbsent)) => ["conditional/create_once", "conditional/create_race_one_winner", "damaged/no_condition_holds", "errors/conditions_taxonomy", "model/random_calls", "stream/conditional"];
    updates_anything = Drops(|condition| matches!(condition, Condition::IfMatch(_))) => [
        "concurrency/counter_loses_no_update",
        "conditional/delete_race_one_winner",
        "conditional/no_aba",
        "conditional/update_missing",
        "conditional/update_race_one_winner",
        "conditional/update_stale",
        "damaged/no_condition_holds",
        "errors/conditions_taxonomy",
        "stream/conditional",
    ];
    checks_then_creates = ChecksThenWrites { creates: true } => ["conditional/create_race_one_winner", "damaged/no_condition_holds"];
    checks_then_updates = ChecksThenWrites { creates: false } => [
        "concurrency/counter_loses_no_update",
        "conditional/delete_race_one_winner",
        "conditional/update_race_one_winner",
        "damaged/no_condition_holds",
    ];
    update_creates = UpdateCreates => ["conditional/delete_race_one_winner", "conditional/update_missing", "damaged/no_condition_holds"];
    returns_the_old_etag = ReturnsTheOldEtag => ["conditional/update_match"];
    deletes_anything = DeletesAnything => ["conditional/conditional_delete", "conditional/delete_race_one_winner", "damaged/no_condition_holds"];
    checks_then_deletes = ChecksThenDeletes => ["conditional/delete_race_one_winner", "damaged/no_condition_holds"];
    reads_any_version = Reads(|options| options.if_match = None) => ["range/in_parallel", "conditional/read_conditions"];
    reads_again = Reads(|options| options.if_none_match = None) => ["conditional/read_conditions"];
    etag_of_the_content = Tags(|bytes| format!("{:x}", fnv(bytes))) => [
        "conditional/no_aba",
        "damaged/can_be_replaced_and_removed",
        "damaged/is_listed_as_such",
        "damaged/no_condition_holds",
        "damaged/queries_find_it_by_no_metadata",
        "entries/an_equal_write_is_a_write",
        "entries/every_write_returns_its_entry",
        "entries/of_writes_in_a_transaction",
        "metadata/etag_changes_x1000",
        "transactions/entries_survive_commit",
        "versioning/listed_as_described",
    ];
    etag_of_the_length = Tags(|bytes| bytes.len().to_string()) => [
        "concurrency/counter_loses_no_update",
        "conditional/conditional_delete",
        "conditional/delete_race_one_winner",
        "conditional/no_aba",
        "conditional/read_conditions",
        "conditional/update_race_one_winner",
        "copy/conditional",
        "damaged/can_be_replaced_and_removed",
        "damaged/is_listed_as_such",
        "damaged/no_condition_holds",
        "damaged/queries_find_it_by_no_metadata",
        "dropped/batch_is_never_late",
        "entries/an_equal_write_is_a_write",
        "entries/etag_sees_every_byte",
        "entries/every_write_returns_its_entry",
        "entries/of_writes_in_a_transaction",
        "metadata/etag_changes_with_bytes",
        "metadata/etag_changes_x1000",
        "range/in_parallel",
        "rename/conditional",
        "transactions/entries_survive_commit",
        "versioning/listed_as_described",
    ];
}

/// Puts without a condition of this kind.
#[derive(Debug)]
struct Drops(fn(&Condition) -> bool);

#[async_trait]
impl Fault for Drops {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        options.condition = options.condition.filter(|condition| !(self.0)(condition));
        s.inner.put(key, body, options).await
    }
}

fn failed(condition: &Condition) -> Error {
    match condition {
        Condition::IfAbsent => Error::new(ErrorKind::AlreadyExists, "the key exists"),
        _ => Error::new(ErrorKind::PreconditionFailed, "the value has another etag"),
    }
}

async fn holds(s: Sides<'_>, key: &Key, condition: &Condition) -> Result<bool> {
    let current = s.inner.stat(key, StatOptions::new()).await?;
    Ok(match condition {
        Condition::IfMatch(etag) => current.is_some_and(|entry| entry.etag.as_ref() == Some(etag)),
        _ => current.is_none(),
    })
}

/// Others can write between the check and the write.
#[derive(Debug)]
struct ChecksThenWrites {
    creates: bool,
}

#[async_trait]
impl Fault for ChecksThenWrites {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let concerned = |condition: &Condition| matches!(condition, Condition::IfAbsent) == self.creates;
        if body.is_in_memory()
            && let Some(condition) = options.condition.take_if(|condition| concerned(condition))
        {
            if !holds(s, key, &condition).await? {
                return Err(failed(&condition));
            }
            pause().await;
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct UpdateCreates;

#[async_trait]
impl Fault for UpdateCreates {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        if matches!(options.condition, Some(Condition::IfMatch(_)))
            && s.inner.stat(key, StatOptions::new()).await?.is_none()
        {
            options.condition = Some(Condition::IfAbsent);
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct ReturnsTheOldEtag;

#[async_trait]
impl Fault for ReturnsTheOldEtag {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let etag = match &options.condition {
            Some(Condition::IfMatch(etag)) => Some(etag.clone()),
            _ => None,
        };
        let mut entry = s.inner.put(key, body, options).await?;
        entry.etag = etag.or(entry.etag);
        Ok(entry)
    }
}

#[derive(Debug)]
struct DeletesAnything;

#[async_trait]
impl Fault for DeletesAnything {
    async fn delete(&self, s: Sides<'_>, key: &Key, mut options: DeleteOptions) -> Result<()> {
        options.condition = None;
        s.inner.delete(key, options).await
    }
}

#[derive(Debug)]
struct ChecksThenDeletes;

#[async_trait]
impl Fault for ChecksThenDeletes {
    async fn delete(&self, s: Sides<'_>, key: &Key, mut options: DeleteOptions) -> Result<()> {
        if let Some(condition) = options.condition.take() {
            if !holds(s, key, &condition).await? {
                return Err(failed(&condition));
            }
            pause().await;
        }
        s.inner.delete(key, options).await
    }
}

/// Reads without one of the conditions.
#[derive(Debug)]
struct Reads(fn(&mut GetOptions));

#[async_trait]
impl Fault for Reads {
    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        (self.0)(&mut options);
        s.inner.get(key, options).await
    }
}

/// Etags are made of the bytes.
#[derive(Debug)]
struct Tags(fn(&[u8]) -> String);

impl Tags {
    /// The condition with the etag that the store below knows, if the one given fits the current bytes.
    async fn below(&self, s: Sides<'_>, key: &Key, condition: Option<Condition>) -> Result<Option<Condition>> {
        if let (Some(Condition::IfMatch(etag)), Some(object)) = (&condition, s.inner.get(key, GetOptions::new()).await?)
            && (self.0)(&whole(object.body).await?) == etag.as_str()
        {
            return Ok(object.entry.etag.map(Condition::IfMatch));
        }
        Ok(condition)
    }

    async fn shown(&self, s: Sides<'_>, mut entry: Entry) -> Result<Entry> {
        let mut options = GetOptions::new();
        options.version.clone_from(&entry.version);
        if let Some(object) = s.inner.get(&entry.key, options).await? {
            entry.etag = Some(Etag::new((self.0)(&whole(object.body).await?)));
        }
        Ok(entry)
    }
}

#[async_trait]
impl Fault for Tags {
    const DERIVED: bool = true;

    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        for etag in [&mut options.if_match, &mut options.if_none_match] {
            let condition = self.below(s, key, etag.clone().map(Condition::IfMatch)).await?;
            if let Some(Condition::IfMatch(below)) = condition {
                *etag = Some(below);
            }
        }
        let Some(mut object) = s.inner.get(key, options).await? else { return Ok(None) };
        object.entry = self.shown(s, object.entry).await?;
        Ok(Some(object))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, mut options: PutOptions) -> Result<Entry> {
        let bytes = whole(body).await?;
        options.condition = self.below(s, key, options.condition).await?;
        let mut entry = s.inner.put(key, bytes.clone().into(), options).await?;
        entry.etag = Some(Etag::new((self.0)(&bytes)));
        Ok(entry)
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, mut options: DeleteOptions) -> Result<()> {
        options.condition = self.below(s, key, options.condition).await?;
        s.inner.delete(key, options).await
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        match s.inner.stat(key, options).await? {
            Some(entry) => self.shown(s, entry).await.map(Some),
            None => Ok(None),
        }
    }

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        if !options.metadata {
            return s.inner.list(options).await;
        }
        let mut items: Vec<ListItem> = Vec::new();
        let mut listing = s.inner.list(options).await?;
        while let Some(item) = listing.try_next().await? {
            items.push(match item {
                ListItem::Entry(entry) => ListItem::Entry(self.shown(s, entry).await?),
                prefix => prefix,
            });
        }
        Ok(streamed(items).boxed())
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
