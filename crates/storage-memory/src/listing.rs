//! A listing of a snapshot, made as it is read.

use std::{
    collections::VecDeque,
    ops::Bound,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use storage_core::{Entry, ListItem, ListOptions, Result};

use crate::store::Chains;

/// How many keys one poll looks at.
const PAGE: usize = 64;

pub(crate) struct Listing {
    chains: Chains,
    options: ListOptions,
    /// Where the next page begins; `None` behind the last.
    next: Option<Bound<String>>,
    page: VecDeque<ListItem>,
    left: usize,
}

impl Listing {
    pub(crate) fn new(chains: Chains, options: ListOptions) -> Self {
        let next = match &options.start_after {
            Some(after) if *after >= options.prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(options.prefix.clone()),
        };
        Self { chains, next: Some(next), page: VecDeque::new(), left: options.limit.unwrap_or(usize::MAX), options }
    }

    /// Reads the items from `start` on, up to a page or the first common prefix, and returns where to go on.
    fn read_page(&mut self, start: &Bound<String>) -> Option<Bound<String>> {
        let range = (start.as_ref().map(String::as_str), Bound::Unbounded);
        let mut last = None;
        for (key, chain) in self.chains.range::<_, str>(range).take(PAGE) {
            if !key.as_str().starts_with(&self.options.prefix) {
                return None;
            }
            last = Some(key);
            let Some(version) = chain.current() else {
                continue;
            };
            match self.options.common_prefix(key.as_str()) {
                Some(common) => {
                    // The start may lie within the common prefix, which then was yielded before.
                    if Some(common) > self.options.start_after.as_deref() {
                        self.page.push_back(ListItem::Prefix(common.to_owned()));
                    }
                    return Some(Bound::Included(behind(common)));
                }
                None => {
                    let entry = if self.options.metadata { version.entry.clone() } else { bare(&version.entry) };
                    self.page.push_back(ListItem::Entry(entry));
                }
            }
        }
        last.map(|key| Bound::Excluded(key.as_str().to_owned()))
    }
}

impl Stream for Listing {
    type Item = Result<ListItem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.page.is_empty() {
            let Some(start) = this.next.take() else {
                return Poll::Ready(None);
            };
            this.next = this.read_page(&start);
        }
        match this.page.pop_front() {
            Some(item) => {
                this.left -= 1;
                Poll::Ready(Some(Ok(item)))
            }
            None if this.next.is_none() => Poll::Ready(None),
            // A page of hidden keys: others may run before the next one.
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// The entry without its metadata, which is not even cloned.
fn bare(entry: &Entry) -> Entry {
    let mut bare = Entry::new(entry.key.clone(), entry.size);
    bare.modified = entry.modified;
    bare.created = entry.created;
    bare.etag = entry.etag.clone();
    bare.version = entry.version.clone();
    bare
}

/// The least text that is greater than everything that begins with this common prefix, which ends in a slash.
fn behind(common: &str) -> String {
    let next = char::from(b'/' + 1);
    format!("{}{next}", common.strip_suffix('/').unwrap_or(common))
}
