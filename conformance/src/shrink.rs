//! From a query with a wrong answer to the shortest one, over the least data, that still has a wrong answer.

use std::fmt::Write;

use storage_core::{Entry, Order, Query, Result, Storage};

use crate::{checks::query::agrees, support::with};

/// Leaves out of the query and of the store whatever the wrong answer does not need, and describes what is left.
pub(crate) async fn shortest(s: &Storage, mut data: Vec<Entry>, mut query: Query) -> Result<String> {
    let mut i = 0;
    while i < data.len() {
        let entry = data.remove(i);
        s.delete(&entry.key).await?;
        if !wrong(s, &data, query.clone()).await {
            data.insert(i, put_back(s, entry).await?);
            i += 1;
        }
    }
    // A part that can go may let another go that could not before.
    let mut left = shorter(&query);
    while let Some(candidate) = left.pop() {
        if wrong(s, &data, candidate.clone()).await {
            left = shorter(&candidate);
            query = candidate;
        }
    }
    let mut text = format!("in short: {query:?} over");
    for entry in &data {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {:?} of {} bytes: {:?}", entry.key.as_str(), entry.size, entry.metadata);
    }
    Ok(text)
}

/// The query without one of its parts.
fn shorter(query: &Query) -> Vec<Query> {
    let mut all = Vec::new();
    for i in 0..query.filters.len() {
        let mut without = query.clone();
        without.filters.remove(i);
        all.push(without);
    }
    let parts: [fn(&mut Query); 4] = [
        |query| query.limit = None,
        |query| query.prefix.clear(),
        |query| query.continuation = None,
        |query| (query.continuation, query.order) = (None, Order::default()),
    ];
    for leave_out in parts {
        let mut without = query.clone();
        leave_out(&mut without);
        all.push(without);
    }
    all.retain(|shorter| shorter != query);
    all
}

async fn wrong(s: &Storage, data: &[Entry], query: Query) -> bool {
    agrees(s, data, query).await.is_err()
}

async fn put_back(s: &Storage, mut entry: Entry) -> Result<Entry> {
    let metadata = entry.metadata.as_deref().cloned().unwrap_or_default();
    let value = vec![b'x'; usize::try_from(entry.size).unwrap_or_default()];
    let put = s.put_with(&entry.key, value, with(metadata)).await?;
    (entry.modified, entry.created, entry.etag) = (put.modified, put.created, put.etag);
    Ok(entry)
}
