//! Listings page by page, from a store whose own calls are used, and the versions of a value.

use std::sync::Arc;

use futures_util::{
    StreamExt, TryStreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use object_store::{ObjectMeta, path::Path};
use storage_core::{EntryStream, Error, Key, Result, VersionId};

use crate::{
    Ask, Found, Native, Page,
    backend::Inner,
    list::{CONCURRENCY, foreign},
};

/// What of a page is an object or a directory that `object_store` has a name for.
#[derive(Default)]
pub(crate) struct Level {
    pub(crate) objects: Vec<ObjectMeta>,
    pub(crate) prefixes: Vec<Path>,
}

/// The objects of all pages.
pub(crate) fn objects(native: Arc<dyn Native>, ask: Ask) -> BoxStream<'static, Result<ObjectMeta>> {
    pages(ask, move |ask| {
        let native = native.clone();
        async move { native.list(&ask).await }
    })
    .map_ok(|page| stream::iter(page.objects.into_iter().filter_map(object).map(Ok)))
    .try_flatten()
    .boxed()
}

/// The objects of the first page, and the question for the next ones.
pub(crate) async fn first(native: &dyn Native, ask: Ask) -> Result<(Vec<ObjectMeta>, Option<Ask>)> {
    let page = native.list(&ask).await?;
    let objects = page.objects.into_iter().filter_map(object).collect();
    Ok((objects, page.next.map(|next| Ask { next: Some(next), ..ask })))
}

/// One level, all pages together.
pub(crate) async fn level(native: Arc<dyn Native>, ask: Ask) -> Result<Level> {
    let pages = pages(ask, move |ask| {
        let native = native.clone();
        async move { native.list(&ask).await }
    });
    let together = |mut level: Level, page: Page| {
        level.objects.extend(page.objects.into_iter().filter_map(object));
        // One that ends in two slashes is above names that are no path either.
        let names = page.prefixes.iter().filter_map(|prefix| prefix.strip_suffix('/'));
        level.prefixes.extend(names.filter(|name| !name.is_empty()).filter_map(path));
        ready(Ok(level))
    };
    pages.try_fold(Level::default(), together).await
}

fn pages<F, Fut>(ask: Ask, get: F) -> BoxStream<'static, Result<Page>>
where
    F: Fn(Ask) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Page>> + Send + 'static,
{
    stream::try_unfold((Some(ask), get), |(ask, get)| async move {
        let Some(ask) = ask else {
            return Ok::<_, Error>(None);
        };
        let mut page = get(ask.clone()).await?;
        let ask = page.next.take().map(|next| Ask { next: Some(next), ..ask });
        Ok(Some((page, (ask, get))))
    })
    .boxed()
}

fn object(found: Found) -> Option<ObjectMeta> {
    let location = path(&found.name)?;
    let Found { size, modified: last_modified, etag: e_tag, version, .. } = found;
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
        let ask = Ask { prefix: place.to_string(), limit: 1000, ..Ask::default() };
        let found = pages(ask, move |ask| {
            let native = native.clone();
            async move { native.versions(&ask).await }
        });
        let found = found.map_ok(|page| stream::iter(page.objects.into_iter().map(Ok))).try_flatten();
        // Behind the key's own come those of longer names.
        let own = found.try_take_while(move |found| ready(Ok(found.name == place.as_ref())));
        let (this, key) = (self.clone(), key.clone());
        let entries = own.map(move |found| {
            let (this, key) = (this.clone(), key.clone());
            async move {
                let found = found?;
                match found.version.filter(|_| !found.deleted).map(VersionId::from) {
                    Some(version) => this.describe(&key, Some(&version)).await,
                    None => Ok(None),
                }
            }
        });
        Ok(until_error(entries.buffered(CONCURRENCY).boxed()))
    }
}

/// What there is, up to the first error.
pub(crate) fn until_error<T: Send + 'static>(
    items: BoxStream<'static, Result<Option<T>>>,
) -> BoxStream<'static, Result<T>> {
    stream::try_unfold(items, |mut items| async move {
        while let Some(item) = items.try_next().await? {
            if let Some(item) = item {
                return Ok(Some((item, items)));
            }
        }
        Ok(None)
    })
    .boxed()
}
