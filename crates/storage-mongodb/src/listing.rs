//! Listings, a page at a time: between two pages nothing is held, on the server neither.

use futures_util::{TryStreamExt, stream};
use mongodb::bson::{Bson, Document, doc};
use storage_core::{
    Entry, ListItem, ListOptions, ListStream, Result,
    defaults::{begun, fold},
    pending::Keys,
};

use crate::{
    batch,
    document::{self, behind, prefixed},
    session::{Db, Session, Touches},
};

/// How many entries a page has at most. A page with metadata may end earlier, where the answer of the server is full.
const PAGE: usize = 1000;

struct Listing {
    options: ListOptions,
    /// Where the next page begins: behind this text, or with it if the flag says so. `None` behind the last page.
    next: Option<(String, bool)>,
    left: usize,
}

impl Session {
    pub(crate) async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let next = match &options.start_after {
            Some(after) if *after >= options.prefix => (after.clone(), false),
            _ => (options.prefix.clone(), true),
        };
        let listing = Listing { left: options.limit.unwrap_or(usize::MAX), next: Some(next), options };
        let session = self.clone();
        let pages = stream::try_unfold(listing, move |mut listing| {
            let session = session.clone();
            async move {
                let Some(from) = listing.next.take().filter(|_| listing.left > 0) else {
                    return Ok::<_, storage_core::Error>(None);
                };
                let size = if listing.options.delimited { PAGE } else { listing.left.min(PAGE) };
                let page = page(&session, &listing.options, from, size).await?;
                let items = listing.turn(page);
                Ok(Some((stream::iter(items.into_iter().map(Ok)), listing)))
            }
        });
        begun(pages.try_flatten()).await
    }

    pub(crate) async fn clear(&self, prefix: &str) -> Result<()> {
        let keys = prefix.to_owned();
        let job = |mut db: Db| async move {
            let mut range = prefixed(&keys);
            loop {
                let seen = batch::look(&mut db, range.clone(), PAGE).await?;
                let last = seen.last().and_then(|last| last.get_str("_id").ok()).map(str::to_owned);
                let full = seen.len() == PAGE;
                batch::delete_seen(&mut db, seen).await?;
                // What is created behind is not cleared twice, nor waited for.
                let Some(last) = last.filter(|_| full) else { return Ok(()) };
                range.remove("$gte");
                range.insert("$gt", last);
            }
        };
        self.run(Keys::prefix(prefix), Touches::Prefix(prefix), job).await
    }
}

/// Keys with what their documents say, and whether there may be more.
type Page = (Vec<(String, Option<Entry>)>, bool);

async fn page(
    session: &Session,
    options: &ListOptions,
    (from, inclusive): (String, bool),
    size: usize,
) -> Result<Page> {
    let mut range = prefixed(&options.prefix);
    range.remove("$gte");
    range.insert(if inclusive { "$gte" } else { "$gt" }, from);
    let metadata = options.metadata;
    let projection = if metadata {
        doc! { "data": 0 }
    } else {
        doc! { "data": 0, "metadata": 0 }
    };
    let find = doc! {
        "find": &session.store.collection,
        "filter": { "_id": range },
        "projection": projection,
        "sort": { "_id": 1 },
        "limit": size as i64,
        "batchSize": size as i64,
    };
    let job = |mut db: Db| async move { db.documents(find).await };
    let (documents, more) =
        session.run(Keys::prefix(options.prefix.as_str()), Touches::Prefix(&options.prefix), job).await?;
    let more = more || documents.len() == size;
    Ok((documents.into_iter().filter_map(|document| row(session, document, metadata)).collect(), more))
}

fn row(session: &Session, document: Document, metadata: bool) -> Option<(String, Option<Entry>)> {
    let key = match document.get("_id") {
        Some(Bson::String(key)) => key.clone(),
        _ => return None,
    };
    let found = document::found(document, false, metadata);
    Some((key, found.map(|found| session.store.versioned(found).entry)))
}

impl Listing {
    /// The items that a page makes, and where the next begins.
    fn turn(&mut self, (rows, more): Page) -> Vec<ListItem> {
        let mut entries = Vec::with_capacity(rows.len());
        for (position, entry) in rows {
            self.next = Some((position, false));
            entries.extend(entry);
        }
        let (mut items, common) = fold(entries, &self.options);
        self.next = self.next.take().filter(|_| more);
        if let (Some(_), Some(common)) = (&self.next, common) {
            self.next = behind(&common).map(|behind| (behind, true));
        }
        items.truncate(self.left);
        self.left -= items.len();
        items
    }
}
