//! Transactions that make the wrong thing of a conflict.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use storage_core::{
    Body, Entry, Error, ErrorKind, Key, PutOptions, Result, StatOptions, StorageBackend, Transaction, async_trait,
};

use super::{
    table,
    transactions::{Base, Begins},
    wrap::{Fault, Sides, value},
};
use crate::support::locked;

table! {
    what_was_deleted_is_free = Begins(|base| DeletedIsFree { base, replaced: Mutex::default() }) => ["transactions/delete_conflict"];
    conflict_is_something_else = Begins(|_| OtherConflict) => [
        "transactions/counter_loses_no_update",
        "transactions/delete_conflict",
        "transactions/serializable_excludes_write_skew",
        "transactions/write_conflict",
    ];
}

/// A conflict over a key that was there and is gone by now is taken for none.
#[derive(Debug)]
struct DeletedIsFree {
    base: Base,
    replaced: Mutex<BTreeSet<Key>>,
}

#[async_trait]
impl Fault for DeletedIsFree {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if s.inner.stat(key, StatOptions::new()).await?.is_some() {
            locked(&self.replaced).insert(key.clone());
        }
        s.inner.put(key, body, options).await
    }

    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        let within: Base = tx.clone();
        let sides = Sides { outer: &*within, inner: &within };
        let replaced = std::mem::take(&mut *locked(&self.replaced));
        let mut free = Vec::new();
        for key in replaced {
            if self.base.stat(&key, StatOptions::new()).await?.is_none() {
                free.extend(value(sides, &key).await?.map(|value| (key, value)));
            }
        }
        match tx.commit().await {
            Err(e) if e.kind() == ErrorKind::Conflict && !free.is_empty() => {
                for (key, value) in free {
                    self.base.put(&key, value.into(), PutOptions::new()).await?;
                }
                Ok(())
            }
            result => result,
        }
    }
}

#[derive(Debug)]
struct OtherConflict;

#[async_trait]
impl Fault for OtherConflict {
    async fn commit(&self, tx: &Arc<dyn Transaction>) -> Result<()> {
        tx.commit().await.map_err(|e| match e.kind() {
            ErrorKind::Conflict => Error::new(ErrorKind::Other, "the transaction could not be serialized"),
            _ => e,
        })
    }
}
