//! Listings, a page at a time: between two pages nothing is held, so a slow reader blocks nobody.

use futures_util::{TryStreamExt, stream};
use storage_core::{
    Entry, ListItem, ListOptions, ListStream, Result,
    defaults::{begun, fold},
};

use crate::{
    read::{self, ENTRY},
    session::{Db, Session},
    value::Value,
    write::bounds,
};

/// How many rows a page has at most.
const PAGE: usize = 500;
/// The same if the metadata comes with them.
const PAGE_WITH_METADATA: usize = 100;

/// A row: its key, and the entry unless somebody else has put there what cannot be a key.
type Row = (Value, Option<Entry>);

struct Listing {
    options: ListOptions,
    /// Where the next page begins: behind this key, or with it if the flag says so. `None` behind the last page.
    next: Option<(Value, bool)>,
    left: usize,
}

impl Session {
    pub(crate) async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let [start, _] = bounds(&options.prefix);
        let next = match &options.start_after {
            Some(after) if *after >= options.prefix => (Value::bytes(after), false),
            _ => (start, true),
        };
        let listing = Listing { left: options.limit.unwrap_or(usize::MAX), next: Some(next), options };
        let session = self.clone();
        let pages = stream::try_unfold(listing, move |mut listing| {
            let session = session.clone();
            async move {
                let Some(from) = listing.next.take().filter(|_| listing.left > 0) else {
                    return Ok(None);
                };
                let (size, metadata) = (listing.page(), listing.options.metadata);
                let [_, end] = bounds(&listing.options.prefix);
                let page = session.read(move |mut db| {
                    let (from, end) = (from.clone(), end.clone());
                    Box::pin(async move { rows(&mut db, from, end, size, metadata).await })
                });
                let items = listing.turn(page.await?, size);
                Ok(Some((stream::iter(items.into_iter().map(Ok)), listing)))
            }
        });
        begun(pages.try_flatten()).await
    }
}

impl Listing {
    fn page(&self) -> usize {
        let most = match self.options.metadata {
            true => PAGE_WITH_METADATA,
            false => PAGE,
        };
        // A listing of one level may need many rows for one item.
        match self.options.delimited {
            true => most,
            false => self.left.min(most),
        }
    }

    /// The items that the rows of a page make, and where the next begins.
    fn turn(&mut self, rows: Vec<Row>, size: usize) -> Vec<ListItem> {
        let full = rows.len() == size;
        let mut entries = Vec::with_capacity(rows.len());
        for (key, entry) in rows {
            self.next = Some((key, false));
            entries.extend(entry);
        }
        let (mut items, common) = fold(entries, &self.options);
        self.next = self.next.take().filter(|_| full);
        if let (Some(_), Some(common)) = (&self.next, common) {
            let [_, behind] = bounds(&common);
            self.next = Some((behind, true));
        }
        items.truncate(self.left);
        self.left -= items.len();
        items
    }
}

async fn rows(
    db: &mut Db<'_>,
    (from, inclusive): (Value, bool),
    end: Value,
    size: usize,
    metadata: bool,
) -> Result<Vec<Row>> {
    let entries = &db.store.tables.entries;
    let compare = if inclusive { ">=" } else { ">" };
    let more = if metadata { ", e.metadata" } else { "" };
    let sql = format!(
        "SELECT e.entry_key, {ENTRY}{more} FROM {entries} e WHERE e.entry_key {compare} ? AND e.entry_key < ? \
         ORDER BY e.entry_key LIMIT ?"
    );
    let (mut rows, versioned) = (Vec::with_capacity(size), db.store.versions.is_some());
    for mut row in db.fetch(sql, vec![from, end, (size as i64).into()]).await? {
        let bytes = row.bytes()?;
        let Some(key) = read::key(&bytes) else {
            rows.push((Value::Bytes(bytes), None));
            continue;
        };
        let mut entry = read::entry(key, versioned, &mut row);
        if metadata {
            entry = read::described(entry, &mut row);
        }
        rows.push((Value::Bytes(bytes), Some(entry)));
    }
    Ok(rows)
}
