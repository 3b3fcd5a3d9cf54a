//! Listings: the keys that lie under themselves and those of the annex, each in order, merged.

use std::{cmp::Ordering, fmt, pin::Pin, sync::Arc};

use futures_util::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use object_store::{Error as Failed, ObjectMeta, path::Path};
use storage_core::{Error, ErrorKind, Key, ListItem, ListOptions, ListStream, Result, defaults};

use crate::{
    CloudExtensions, ListRequest,
    backend::Inner,
    error,
    pages::{Level, Pages},
};

/// How many entries are asked for their metadata at once.
pub(crate) const CONCURRENCY: usize = 16;
/// How many names are asked for at once, and how few at least.
const PAGE: usize = 1000;
const FEWEST: usize = 16;

type Objects = BoxStream<'static, Result<ObjectMeta>>;
type Found = BoxStream<'static, Result<(Key, ObjectMeta)>>;

impl Inner {
    pub(crate) async fn items(self: &Arc<Self>, options: ListOptions) -> Result<ListStream> {
        let (natural, annexed) = match &self.native {
            Some(native) if options.prefix.is_empty() && options.start_after.is_none() && !options.delimited => {
                self.all(native, options.limit).await?
            }
            _ => self.apart(&options),
        };
        let natural = match self.names.directory(&options.prefix) {
            None => stream::empty().boxed(),
            Some(directory) if options.delimited => self.level(directory, &options.prefix).await?,
            Some(directory) => self.entries(natural, directory, &options.prefix).await?,
        };
        let annexed = self.entries(annexed, self.names.annex(), &options.prefix).await?;
        let mut fold = options.clone();
        fold.limit = None;
        let annexed = defaults::listing(defaults::entries(annexed), fold);
        let mut items = merge(natural, annexed);
        if let Some(start) = options.start_after {
            let behind = move |item: &ListItem| ready(item.position() > start.as_str());
            items = items.try_filter(behind).boxed();
        }
        if options.metadata {
            items = self.with_metadata(items);
        }
        Ok(items.take(options.limit.unwrap_or(usize::MAX)).boxed())
    }

    /// The objects that may be keys under their own names, and those of the annex.
    fn apart(&self, options: &ListOptions) -> (Objects, Objects) {
        // A level folds many entries into one item.
        let limit = options.limit.filter(|_| !options.delimited);
        let natural = match self.names.directory(&options.prefix) {
            Some(directory) => {
                let offset = self.names.before(&text_before(options));
                self.objects(&directory, offset.as_ref(), &options.prefix, limit)
            }
            None => stream::empty().boxed(),
        };
        let offset = bytes_before(options).map(|bytes| self.names.before_encoded(&bytes));
        (natural, self.objects(&self.names.annex(), offset.as_ref(), &options.prefix, limit))
    }

    /// The same for a listing of everything. The annex lies within it, mostly on the first page, so that no request of its own
    /// is needed.
    async fn all(&self, native: &Arc<dyn CloudExtensions>, limit: Option<usize>) -> Result<(Objects, Objects)> {
        let annex = format!("{}/", self.names.annex());
        let ask = ListRequest {
            prefix: self.names.literal("").unwrap_or_default(),
            limit: page_size(limit),
            ..ListRequest::default()
        };
        let mut pages = Pages::new(native.clone(), self.profile.naming, ask);
        let first = pages.objects().await?;
        let annexed: Vec<_> =
            first.iter().filter(|about| about.location.as_ref().starts_with(&annex)).cloned().collect();
        let passed =
            |about: &ObjectMeta| *about.location.as_ref() > *annex && !about.location.as_ref().starts_with(&annex);
        let annexed = match pages.is_over() || first.last().is_some_and(passed) {
            true => stream::iter(annexed.into_iter().map(Ok)).boxed(),
            false => self.objects(&self.names.annex(), None, "", limit),
        };
        Ok((stream::iter(first.into_iter().map(Ok)).chain(pages.all()).boxed(), annexed))
    }

    /// The places of exactly the entries that a listing of the prefix shows, in no order.
    pub(crate) fn places(self: &Arc<Self>, prefix: &str) -> BoxStream<'static, object_store::Result<Path>> {
        let natural = self.names.directory(prefix);
        let directories = natural.into_iter().chain([self.names.annex()]);
        let (this, prefix) = (self.clone(), prefix.to_owned());
        stream::iter(directories)
            .flat_map(move |directory| {
                let (this, prefix) = (this.clone(), prefix.clone());
                let objects = this.objects(&directory, None, &prefix, None);
                // The store's own error type, because it takes the places back in a stream of its own.
                let objects = objects.map_err(|e| Failed::Generic { store: "storage", source: Box::new(e) });
                objects.try_filter_map(move |about| {
                    let key = this.listed_key(&about, &directory);
                    let key = key.filter(|key| key.as_str().starts_with(&prefix));
                    ready(Ok(key.map(|_| about.location)))
                })
            })
            .boxed()
    }

    /// What a directory holds, itself and below, as far as it may have the prefix; from behind an offset, in the order of the
    /// store.
    fn objects(&self, directory: &Path, offset: Option<&Path>, prefix: &str, limit: Option<usize>) -> Objects {
        if let Some(native) = &self.native {
            let Some(ask) = self.ask(directory, prefix, limit) else {
                return stream::empty().boxed();
            };
            let ask = ListRequest { after: offset.map(Path::to_string), ..ask };
            return Pages::new(native.clone(), self.profile.naming, ask).all();
        }
        let objects = match offset {
            Some(offset) => self.store.list_with_offset(not_root(directory), offset),
            None => self.store.list(not_root(directory)),
        };
        objects.map_err(error::read).boxed()
    }

    /// The question for a directory's names; `None` where no name can have the prefix.
    fn ask(&self, directory: &Path, prefix: &str, limit: Option<usize>) -> Option<ListRequest> {
        let prefix = match *directory == self.names.annex() {
            true => format!("{directory}/"),
            false => self.names.literal(prefix)?,
        };
        Some(ListRequest { prefix, limit: page_size(limit), ..ListRequest::default() })
    }

    /// The entries with the prefix in a directory and below, in order.
    async fn entries(self: &Arc<Self>, objects: Objects, directory: Path, prefix: &str) -> Result<ListStream> {
        let (this, sorted, wanted) = (self.clone(), self.profile.sorted, prefix.to_owned());
        let found = objects.try_filter_map(move |about| {
            let key = this.listed_key(&about, &directory);
            ready(Ok(key.map(|key| (key, about))))
        });
        let found = found.try_take_while(move |(key, _)| {
            let passed = sorted && *key.as_str() > *wanted && !key.as_str().starts_with(&wanted);
            ready(Ok(!passed))
        });
        let wanted = prefix.to_owned();
        let found = found.try_filter(move |(key, _)| ready(key.as_str().starts_with(&wanted)));
        let found = match sorted {
            true => in_order(found.boxed()),
            false => {
                let mut all: Vec<_> = found.try_collect().await?;
                all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                // A directory that is written while it is read may show a name twice.
                all.dedup_by(|(a, _), (b, _)| a == b);
                stream::iter(all.into_iter().map(Ok)).boxed()
            }
        };
        let this = self.clone();
        let entries = found.map_ok(move |(key, about)| ListItem::Entry(this.listed(key, &about)));
        Ok(entries.boxed())
    }

    /// One level of the keys that lie under themselves. A store answers with all of it at once, in any order.
    async fn level(&self, directory: Path, prefix: &str) -> Result<ListStream> {
        let level = match &self.native {
            Some(native) => match self.ask(&directory, prefix, None) {
                Some(ask) => {
                    let ask = ListRequest { delimited: true, ..ask };
                    Pages::new(native.clone(), self.profile.naming, ask).level().await?
                }
                None => Level::default(),
            },
            None => {
                let level = self.store.list_with_delimiter(not_root(&directory)).await;
                let level = level.map_err(error::read)?;
                Level { objects: level.objects, prefixes: level.common_prefixes }
            }
        };
        let mut items = Vec::with_capacity(level.objects.len() + level.prefixes.len());
        for about in level.objects {
            let key = self.listed_key(&about, &directory);
            items.extend(key.map(|key| ListItem::Entry(self.listed(key, &about))));
        }
        for below in level.prefixes {
            match self.names.common_prefix(&below) {
                Some(common) => items.push(ListItem::Prefix(common)),
                None if self.names.is_reserved(&below) => {}
                None => foreign(&below),
            }
        }
        items.retain(|item| item.position().starts_with(prefix));
        items.sort_unstable_by(|a, b| a.position().cmp(b.position()));
        // A server may show a name twice.
        items.dedup_by(|a, b| {
            a.position() == b.position() && matches!(a, ListItem::Entry(_)) == matches!(b, ListItem::Entry(_))
        });
        Ok(stream::iter(items.into_iter().map(Ok)).boxed())
    }

    /// The key of an object that a listing of this directory shows.
    fn listed_key(&self, about: &ObjectMeta, directory: &Path) -> Option<Key> {
        let annexed = self.names.is_reserved(&about.location);
        if annexed && *directory != self.names.annex() {
            return None;
        }
        let key = self.names.key(&about.location);
        if key.is_none() {
            foreign(&about.location);
        }
        key
    }

    /// Entries that are gone by the time they are asked are left out.
    fn with_metadata(self: &Arc<Self>, items: ListStream) -> ListStream {
        let this = self.clone();
        let described = items.map(move |item| {
            let this = this.clone();
            async move {
                match item? {
                    ListItem::Entry(entry) => match this.describe(&entry.key, None).await {
                        Ok(now) => Ok(now.map(ListItem::Entry)),
                        // That is about this entry alone.
                        Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Some(ListItem::Entry(entry.into_damaged(e)))),
                        Err(e) => Err(e.with_key(&entry.key)),
                    },
                    prefix => Ok(Some(prefix)),
                }
            }
        });
        defaults::until_error(described.buffered(CONCURRENCY)).try_filter_map(|entry| ready(Ok(entry))).boxed()
    }
}

/// A page that is too small costs another request, where something on it does not count.
fn page_size(limit: Option<usize>) -> usize {
    limit.map_or(PAGE, |limit| limit.clamp(FEWEST, PAGE))
}

fn not_root(directory: &Path) -> Option<&Path> {
    (!directory.is_root()).then_some(directory)
}

pub(crate) fn foreign(place: &dyn fmt::Display) {
    tracing::warn!(%place, "a listing skips an object that was not written as the value of a key");
}

/// A text before every wanted key and as late as possible, or empty.
fn text_before(options: &ListOptions) -> String {
    let mut chars = options.prefix.chars();
    let mut before = match chars.next_back() {
        // `b` itself may be a key, so a listing of `b…` begins behind `a~`. Between the two lies little.
        Some(last @ '!'..='~') => format!("{}{}~", chars.as_str(), char::from(last as u8 - 1)),
        _ => chars.as_str().to_owned(),
    };
    if let Some(start) = &options.start_after {
        before = before.max(start.clone());
    }
    before
}

/// The same for the annex, which can begin at any bytes: nothing in UTF-8 lies behind a byte of 255.
fn bytes_before(options: &ListOptions) -> Option<Vec<u8>> {
    let mut before = options.prefix.clone().into_bytes();
    if let Some(last) = before.last_mut() {
        *last -= 1;
        before.push(u8::MAX);
    }
    let start = options.start_after.as_deref().unwrap_or_default();
    let before = before.max(start.as_bytes().to_owned());
    (!before.is_empty()).then_some(before)
}

/// Makes sure that a store that is said to be sorted is.
fn in_order(found: Found) -> Found {
    let mut last = None;
    found
        .and_then(move |(key, about)| {
            let ordered = last.as_ref().is_none_or(|last| *last < key);
            last = Some(key.clone());
            ready(if ordered {
                Ok((key, about))
            } else {
                let message = "the store does not list in order; its profile must not say that it is sorted";
                Err(Error::new(ErrorKind::Config, message))
            })
        })
        .boxed()
}

/// Two ordered listings as one, which ends after an error. A common prefix of both is one.
fn merge(a: ListStream, b: ListStream) -> ListStream {
    let both = (a.peekable(), b.peekable());
    stream::try_unfold(both, |(mut a, mut b)| async move {
        let order = match (Pin::new(&mut a).peek().await, Pin::new(&mut b).peek().await) {
            (Some(Ok(a)), Some(Ok(b))) => a.position().cmp(b.position()),
            (Some(Err(_)), _) | (_, None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let item = match order {
            Ordering::Less => a.next().await,
            Ordering::Equal => b.next().await.and(a.next().await),
            Ordering::Greater => b.next().await,
        };
        Ok(item.transpose()?.map(|item| (item, (a, b))))
    })
    .boxed()
}
