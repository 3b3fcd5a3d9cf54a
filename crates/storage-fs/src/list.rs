//! Listing: the two walks merged, folded to one level where asked, and described page by page.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use rustix::io::Errno;
use storage_core::{Entry, ErrorKind, Key, ListItem, ListOptions, Result, pending::Commit};

use crate::{
    blocking,
    changes::Changes,
    error,
    store::Store,
    walk::{Clearing, Layout, Walk},
};

/// How many items are made in one hop.
const PAGE: usize = 256;

/// A listing under way.
#[derive(Debug)]
pub(crate) struct Listing {
    store: Arc<Store>,
    options: ListOptions,
    walks: [Head; 2],
    left: usize,
}

/// A walk and its next key.
#[derive(Debug)]
struct Head {
    walk: Walk,
    /// Looked at, not yet taken. The outer `None` says that the walk must be asked.
    next: Option<Option<Key>>,
}

impl Listing {
    pub(crate) fn new(store: Arc<Store>, options: ListOptions) -> Self {
        let head = |layout| Head { walk: Walk::new(layout, &options), next: None };
        Self {
            walks: [head(Layout::Natural), head(Layout::Annex)],
            left: options.limit.unwrap_or(usize::MAX),
            store,
            options,
        }
    }

    /// The items as a stream. Dropping it ends the walk.
    pub(crate) fn stream(self) -> BoxStream<'static, Result<ListItem>> {
        stream::try_unfold((Some(self), VecDeque::new()), |(listing, mut page)| async move {
            let mut listing = listing;
            while page.is_empty()
                && let Some(mut walk) = listing.take()
            {
                (listing, page) = blocking::run(move || {
                    let (page, more) = walk.page()?;
                    Ok((more.then_some(walk), page))
                })
                .await?;
            }
            Ok(page.pop_front().map(|item| (item, (listing, page))))
        })
        .boxed()
    }

    /// A listing to be cleared.
    pub(crate) fn to_clear(store: Arc<Store>, prefix: &str) -> Self {
        let mut this = Self::new(store, ListOptions::new().prefix(prefix));
        for head in &mut this.walks {
            head.walk.clearing = Some(Clearing::default());
        }
        this
    }

    /// Deletes up to a page of what is listed, and says whether there may be more.
    pub(crate) fn clear_page(&mut self, commit: &Commit) -> Result<bool> {
        self.store.check_writable()?;
        let mut changes = Changes::default();
        let removed = self.remove_page(&mut changes, commit);
        let mut denied = false;
        for clearing in self.walks.iter_mut().filter_map(|head| head.walk.clearing.as_mut()) {
            // What is not there any more may have been removed by others, who have not synced that.
            clearing.read.drain(..).for_each(|path| changes.note_seen(&path));
            denied |= clearing.denied;
        }
        // Also where something failed, or the call was given up: the next call may find gone what was removed before.
        changes.settle(&self.store.tree)?;
        let more = removed?;
        if denied && !more {
            return Err(error::os(Errno::ACCESS));
        }
        Ok(more)
    }

    fn remove_page(&mut self, changes: &mut Changes, commit: &Commit) -> Result<bool> {
        for _ in 0..PAGE {
            let Some(key) = self.next_key()? else {
                return Ok(false);
            };
            let removed = self.store.remove(&key, None, changes, commit);
            removed.map_err(|e| e.with_key(&key))?;
        }
        Ok(true)
    }

    /// Some items, and whether there may be more.
    pub(crate) fn page(&mut self) -> Result<(VecDeque<ListItem>, bool)> {
        self.store.check_root()?;
        let mut page = VecDeque::new();
        while page.len() < PAGE.min(self.left) {
            let Some(key) = self.next_key()? else {
                return Ok((page, false));
            };
            if let Some(common) = self.options.common_prefix(key.as_str()).map(str::to_owned) {
                for head in &mut self.walks {
                    head.pass(&common);
                }
                // The start may lie within the common prefix, which then was yielded before.
                if self.options.start_after.as_deref() < Some(common.as_str()) {
                    page.push_back(ListItem::Prefix(common));
                }
            } else if let Some(entry) = self.describe(&key)? {
                page.push_back(ListItem::Entry(entry));
            }
        }
        self.left -= page.len();
        Ok((page, self.left > 0))
    }

    /// The entry of a key that was there a moment ago.
    fn describe(&self, key: &Key) -> Result<Option<Entry>> {
        // All that lies beside the value is in its record.
        let bare = !self.options.etags && !self.options.metadata;
        let entry = match bare {
            true => self.store.find(key).map(|found| found.map(|found| found.bare_entry(key))),
            false => self.store.look(key).map(|found| found.map(|(_, entry)| entry)),
        };
        match entry {
            // A file that another program made unreadable does not break the listing.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                tracing::warn!(key = key.as_str(), error = %e, "skipped in a listing");
                Ok(None)
            }
            Ok(Some(mut entry)) => {
                entry.metadata = entry.metadata.filter(|_| self.options.metadata);
                Ok(Some(entry))
            }
            other => other.map_err(|e| e.with_key(key)),
        }
    }

    /// The lesser of the next keys of both walks; a key that both have comes once.
    fn next_key(&mut self) -> Result<Option<Key>> {
        let [natural, annex] = &mut self.walks;
        natural.look(&self.store)?;
        annex.look(&self.store)?;
        let key = match (natural.peek(), annex.peek()) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (a, b) => a.or(b).cloned(),
        };
        for head in [natural, annex] {
            if head.peek() == key.as_ref() {
                head.next = None;
            }
        }
        Ok(key)
    }
}

impl Head {
    fn look(&mut self, store: &Store) -> Result<()> {
        if self.next.is_none() {
            self.next = Some(self.walk.next(store)?);
        }
        Ok(())
    }

    fn peek(&self) -> Option<&Key> {
        self.next.as_ref()?.as_ref()
    }

    fn pass(&mut self, prefix: &str) {
        self.walk.pass(prefix);
        if self.peek().is_some_and(|key| key.as_str().starts_with(prefix)) {
            self.next = None;
        }
    }
}
