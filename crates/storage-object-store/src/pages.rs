//! Listings page by page, from a store whose own calls are used, and the versions of a value.

use std::sync::Arc;

use chrono::DateTime;
use futures_util::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use object_store::{ObjectMeta, path::Path};
use storage_core::{Entry, EntryStream, Error, ErrorKind, Key, Result, VersionId, defaults};

use crate::{
    CloudExtensions, ListRequest, ListedObject, Naming, Page,
    backend::Inner,
    list::{CONCURRENCY, foreign},
    progress::Progress,
};

/// What of a page is an object or a directory that `object_store` has a name for.
#[derive(Default)]
pub(crate) struct Level {
    pub(crate) objects: Vec<ObjectMeta>,
    pub(crate) prefixes: Vec<Path>,
}

/// The pages of one question to a store.
pub(crate) struct Pages {
    native: Arc<dyn CloudExtensions>,
    of_versions: bool,
    /// The next question; none behind the last page.
    ask: Option<ListRequest>,
    progress: Progress,
    /// Why there are no more pages, although there should be.
    failure: Option<Error>,
}

impl Pages {
    /// Those of a listing of objects.
    pub(crate) fn new(native: Arc<dyn CloudExtensions>, naming: Naming, ask: ListRequest) -> Self {
        Self { native, of_versions: false, ask: Some(ask), progress: Progress::new(naming), failure: None }
    }

    /// Those of a listing of versions.
    pub(crate) fn of_versions(native: Arc<dyn CloudExtensions>, naming: Naming, ask: ListRequest) -> Self {
        Self { of_versions: true, ..Self::new(native, naming, ask) }
    }

    pub(crate) async fn page(&mut self) -> Result<Option<Page>> {
        let Some(ask) = self.ask.take() else {
            return self.failure.take().map_or(Ok(None), Err);
        };
        let mut page = match self.of_versions {
            true => self.native.versions(&ask).await?,
            false => self.native.list(&ask).await?,
        };
        match self.of_versions {
            true => self.progress.versions(&mut page)?,
            false => self.progress.objects(&mut page)?,
        }
        if let Some(next) = page.next.take() {
            match self.progress.token(&next, ask.next.as_deref()) {
                Ok(()) => self.ask = Some(ListRequest { next: Some(next), ..ask }),
                // What this page holds is right all the same.
                Err(e) => self.failure = Some(e),
            }
        }
        Ok(Some(page))
    }

    /// The objects of the next page.
    pub(crate) async fn objects(&mut self) -> Result<Vec<ObjectMeta>> {
        let page = self.page().await?.unwrap_or_default();
        Ok(page.objects.into_iter().filter_map(object).collect())
    }

    /// Whether that was the last page.
    pub(crate) fn is_over(&self) -> bool {
        self.ask.is_none() && self.failure.is_none()
    }

    pub(crate) fn stream(self) -> BoxStream<'static, Result<Page>> {
        stream::try_unfold(self, |mut pages| async move { Ok(pages.page().await?.map(|page| (page, pages))) }).boxed()
    }

    /// The objects of all pages.
    pub(crate) fn all(self) -> BoxStream<'static, Result<ObjectMeta>> {
        let pages = self.stream();
        let objects = pages.map_ok(|page| stream::iter(page.objects.into_iter().filter_map(object).map(Ok)));
        objects.try_flatten().boxed()
    }

    /// One level, all pages together.
    pub(crate) async fn level(self) -> Result<Level> {
        let together = |mut level: Level, page: Page| {
            level.objects.extend(page.objects.into_iter().filter_map(object));
            // One that ends in two slashes is above names that are no path either.
            let names = page.prefixes.iter().filter_map(|prefix| prefix.strip_suffix('/'));
            level.prefixes.extend(names.filter(|name| !name.is_empty()).filter_map(path));
            ready(Ok(level))
        };
        self.stream().try_fold(Level::default(), together).await
    }
}

fn object(found: ListedObject) -> Option<ObjectMeta> {
    let location = path(&found.name)?;
    let ListedObject { size, modified, etag: e_tag, version, .. } = found;
    let last_modified = modified.unwrap_or(DateTime::UNIX_EPOCH);
    Some(ObjectMeta { location, last_modified, size, e_tag, version })
}

/// A name as it is, if `object_store` can express it.
fn path(name: &str) -> Option<Path> {
    let path = Path::parse(name).ok().filter(|path| path.as_ref() == name);
    if path.is_none() {
        foreign(&name);
    }
    path
}

impl Inner {
    pub(crate) fn versions(self: &Arc<Self>, key: &Key) -> Result<EntryStream> {
        if !self.info.capabilities.versioning {
            return Err(Error::unsupported("versions"));
        }
        let native = self.native()?.clone();
        let place = self.names.place(key);
        let ask = ListRequest { prefix: place.to_string(), limit: 1000, ..ListRequest::default() };
        let found = Pages::of_versions(native, self.profile.naming, ask).stream();
        let found = found.map_ok(|page| stream::iter(page.objects.into_iter().map(Ok))).try_flatten();
        // Behind the key's own come those of longer names.
        let own = found.try_take_while(move |found| ready(Ok(found.name == place.as_ref())));
        let (this, key) = (self.clone(), key.clone());
        let entries = own.map(move |found| {
            let (this, key) = (this.clone(), key.clone());
            async move {
                let found = found?;
                let Some(version) = found.version.filter(|_| !found.deleted).map(VersionId::from) else {
                    return Ok(None);
                };
                match this.describe(&key, Some(&version)).await {
                    // That is about this version alone.
                    Err(e) if e.kind() == ErrorKind::Corrupt => {
                        let mut entry = Entry::new(key, found.size);
                        entry.modified = found.modified.map(|time| this.time(time.into()));
                        entry.version = Some(version);
                        Ok(Some(entry.into_damaged(e)))
                    }
                    said => said,
                }
            }
        });
        Ok(defaults::until_error(entries.buffered(CONCURRENCY)).try_filter_map(|entry| ready(Ok(entry))).boxed())
    }
}
