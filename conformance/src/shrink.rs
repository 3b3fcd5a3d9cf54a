//! From a query with a wrong answer to the shortest one, over the least data, that still has a wrong answer.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use storage_core::{Entry, Metadata, Order, Query, Result, Storage};

use crate::{calls, checks::query::agrees, support::with};

/// How long the search takes at most.
const LONGEST: Duration = Duration::from_secs(20);

/// Leaves out of the query and of the store whatever the wrong answer does not need, and returns what is left.
pub(crate) async fn shortest(s: &Storage, data: Vec<Entry>, query: Query) -> Result<(Vec<Entry>, Query)> {
    let mut search = Search { s, data, query, until: Instant::now() + LONGEST };
    search.fewer_entries().await?;
    search.shorter_query().await;
    // A part that can go may let another go that could not before.
    search.fewer_entries().await?;
    search.less_metadata().await?;
    Ok((search.data, search.query))
}

/// The calls that lead to the answer, each behind a line feed.
pub(crate) fn lines(data: &[Entry], query: &Query) -> String {
    let mut text = String::new();
    for entry in data {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {}", calls::put(&entry.key, &value(entry).into(), &with(metadata(entry))));
    }
    let _ = write!(text, "\n    {}", calls::query(query));
    text
}

struct Search<'a> {
    s: &'a Storage,
    data: Vec<Entry>,
    query: Query,
    until: Instant,
}

impl Search<'_> {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    async fn wrong(&self, query: &Query) -> bool {
        agrees(self.s, &self.data, query.clone()).await.is_err()
    }

    async fn fewer_entries(&mut self) -> Result<()> {
        let mut i = 0;
        while i < self.data.len() && self.goes_on() {
            let entry = self.data.remove(i);
            self.s.delete(&entry.key).await?;
            if !self.wrong(&self.query).await {
                let entry = put(self.s, entry).await?;
                self.data.insert(i, entry);
                i += 1;
            }
        }
        Ok(())
    }

    async fn shorter_query(&mut self) {
        let mut left = shorter(&self.query);
        while let Some(candidate) = left.pop().filter(|_| self.goes_on()) {
            if self.wrong(&candidate).await {
                left = shorter(&candidate);
                self.query = candidate;
            }
        }
    }

    async fn less_metadata(&mut self) -> Result<()> {
        for i in 0..self.data.len() {
            let mut left = less(&metadata(&self.data[i]));
            while let Some(candidate) = left.pop().filter(|_| self.goes_on()) {
                let before = self.data[i].clone();
                let mut entry = before.clone();
                entry.metadata = Some(candidate.clone().into());
                self.data[i] = put(self.s, entry).await?;
                if self.wrong(&self.query).await {
                    left = less(&candidate);
                } else {
                    self.data[i] = put(self.s, before).await?;
                }
            }
        }
        Ok(())
    }
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

/// The metadata without one of its parts.
fn less(metadata: &Metadata) -> Vec<Metadata> {
    let mut all = Vec::new();
    let mut without = |leave_out: &dyn Fn(&mut Metadata)| {
        let mut without = metadata.clone();
        leave_out(&mut without);
        all.push(without);
    };
    for name in metadata.fields.keys() {
        without(&|metadata| drop(metadata.fields.remove(name)));
    }
    for tag in &metadata.tags {
        without(&|metadata| metadata.tags.retain(|other| other != tag));
    }
    if metadata.content_type.is_some() {
        without(&|metadata| metadata.content_type = None);
    }
    all
}

fn metadata(entry: &Entry) -> Metadata {
    entry.metadata.as_deref().cloned().unwrap_or_default()
}

fn value(entry: &Entry) -> Vec<u8> {
    vec![b'x'; usize::try_from(entry.size).unwrap_or_default()]
}

/// Puts what the entry says, and returns it with its dates.
async fn put(s: &Storage, mut entry: Entry) -> Result<Entry> {
    let put = s.put_with(&entry.key, value(&entry), with(metadata(&entry))).await?;
    (entry.modified, entry.created, entry.etag) = (put.modified, put.created, put.etag);
    if entry.modified.is_none() || entry.created.is_none() {
        // The answer to a put may lack dates.
        let seen = s.stat(&entry.key).await?;
        (entry.modified, entry.created) = seen.map_or((None, None), |seen| (seen.modified, seen.created));
    }
    Ok(entry)
}
