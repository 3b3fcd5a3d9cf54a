//! The other direction: any storage as an [`ObjectStore`].

mod attributes;
mod error;
mod paginated;
mod upload;

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt, TryStreamExt, future::ready, stream, stream::BoxStream};
use object_store::{
    CopyMode, Extensions, GetOptions as Get, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions as Put, PutPayload, PutResult, RenameTargetMode,
    Result as NativeResult, path::Path,
};
use storage_core::{
    BatchOptions, Buffer, Condition, CopyOptions, DeleteOptions, Entry, Etag, GetOptions, Key, ListItem, ListOptions,
    Object, PutOptions, RenameOptions, StatOptions, Storage, VersionId,
};

use self::{
    attributes::{from_metadata, to_metadata},
    error::{failed, not_found, not_supported},
    upload::Upload,
};

/// How many keys one batch deletes.
const BATCH: usize = 1000;

/// A storage as an [`ObjectStore`], for programs that are written against that trait. Of those, SlateDB was tried.
///
/// - A path is the key. Keys that are no path (`a//b`, `/a`) are not listed.
/// - [`PutMode::Create`] and [`PutMode::Update`], and copies and renames that must not replace anything, are linearizable where the
///   storage has the capability `conditional`, otherwise `NotSupported`. An update is decided by its etag alone.
/// - Attributes are kept as metadata: the content type as such, the pairs of [`Attribute::Metadata`](object_store::Attribute) as
///   text fields, the others as text fields named `object_store/…`. Tags are kept as tags, and never come back through this trait.
/// - An upload in parts is one streamed put: nothing is visible before it completes, nothing remains when it is aborted or
///   dropped, and the parts are in the order of the calls. A part's future resolves when the storage has taken the part.
/// - `list` and its relatives are in the order of the keys.
/// - What can succeed when it is tried again is `Generic`; what cannot is never that. See the README for the whole table.
///
/// Clones share the storage.
#[derive(Clone, Debug)]
pub struct AsObjectStore {
    storage: Storage,
}

impl AsObjectStore {
    /// This storage as an object store; one of a known backend is [erased](Storage::erase) first.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// The storage below.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    async fn head(&self, location: &Path, version: Option<VersionId>) -> NativeResult<Entry> {
        let mut options = StatOptions::new();
        options.version = version;
        let entry = self.storage.stat_with(location.as_ref(), options).await;
        entry.map_err(|e| failed(location, e))?.ok_or_else(|| not_found(location))
    }

    /// What lies below a path, as a listing of the storage would ask for it.
    fn below(prefix: Option<&Path>) -> ListOptions {
        match prefix.map(Path::as_ref) {
            None | Some("") => ListOptions::new(),
            Some(prefix) => ListOptions::new().prefix(format!("{prefix}/")),
        }
    }

    fn entries(&self, options: ListOptions) -> BoxStream<'static, NativeResult<ObjectMeta>> {
        let storage = self.storage.clone();
        let items = async move { storage.list_with(options).await.map(found).map_err(|e| failed(&Path::ROOT, e)) };
        let entries = stream::once(items).try_flatten();
        entries
            .try_filter_map(|found| {
                ready(Ok(match found {
                    Found::Object(about) => Some(about),
                    Found::Prefix(_) => None,
                }))
            })
            .boxed()
    }
}

#[async_trait]
impl ObjectStore for AsObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: Put) -> NativeResult<PutResult> {
        let Put { mode, tags, attributes, extensions: _ } = options;
        let mut put = PutOptions::new();
        put.metadata = to_metadata(&attributes, &tags)?;
        put.condition = match mode {
            PutMode::Overwrite => None,
            PutMode::Create => Some(Condition::IfAbsent),
            PutMode::Update(version) => {
                let etag =
                    version.e_tag.ok_or_else(|| not_supported("an update takes the etag of what it replaces"))?;
                Some(Condition::IfMatch(Etag::new(etag)))
            }
        };
        let written = self.storage.put_with(location.as_ref(), payload.into_iter().collect::<Buffer>(), put).await;
        written.map(put_result).map_err(|e| failed(location, e))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> NativeResult<Box<dyn MultipartUpload>> {
        let PutMultipartOptions { tags, attributes, extensions: _ } = options;
        let mut put = PutOptions::new();
        put.metadata = to_metadata(&attributes, &tags)?;
        Ok(Box::new(Upload::start(self.storage.clone(), location.clone(), put)))
    }

    async fn get_opts(&self, location: &Path, mut options: Get) -> NativeResult<GetResult> {
        let version = options.version.take().map(VersionId::new);
        if options.head {
            let entry = self.head(location, version).await?;
            let about = about(location, &entry);
            options.check_preconditions(&about)?;
            let (range, attributes) = (0..about.size, attributes_of(&entry));
            let payload = GetResultPayload::Stream(stream::empty().boxed());
            return Ok(GetResult { payload, meta: about, range, attributes, extensions: Extensions::new() });
        }
        let mut get = GetOptions::new();
        get.version = version;
        // The range of the answer is what was asked for as far as the value goes, which is only known with the value.
        get.range = options.range.as_ref().map(error::range).transpose()?;
        // The storage then need not send what the caller has. Lists of etags and all other conditions are looked at below.
        let one = options.if_none_match.as_deref().filter(|etags| *etags != "*" && !etags.contains(','));
        get.if_none_match = one.map(Etag::new);
        let object = self.storage.open(location.as_ref(), get).await.map_err(|e| failed(location, e))?;
        let Object { entry, body, .. } = object.ok_or_else(|| not_found(location))?;
        let about = about(location, &entry);
        options.check_preconditions(&about)?;
        let range = match &options.range {
            None => 0..about.size,
            Some(range) => range.as_range(about.size).map_err(|e| not_supported(e.to_string()))?,
        };
        let place = location.clone();
        let payload = GetResultPayload::Stream(body.into_stream().map_err(move |e| failed(&place, e)).boxed());
        let attributes = attributes_of(&entry);
        Ok(GetResult { payload, meta: about, range, attributes, extensions: Extensions::new() })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, NativeResult<Path>>,
    ) -> BoxStream<'static, NativeResult<Path>> {
        let storage = self.storage.clone();
        let batches = locations.chunks(BATCH).then(move |batch| delete(storage.clone(), batch));
        batches.flat_map(stream::iter).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, NativeResult<ObjectMeta>> {
        self.entries(Self::below(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, NativeResult<ObjectMeta>> {
        let below = Self::below(prefix);
        self.entries(match offset.as_ref() {
            "" => below,
            offset => below.start_after(offset),
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> NativeResult<ListResult> {
        let options = Self::below(prefix).delimited(true);
        let items = self.storage.list_with(options).await.map_err(|e| failed(&Path::ROOT, e))?;
        gather(found(items)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: object_store::CopyOptions) -> NativeResult<()> {
        let object_store::CopyOptions { mode, extensions: _ } = options;
        let mut copy = CopyOptions::new();
        copy.condition = match mode {
            CopyMode::Overwrite => None,
            CopyMode::Create => Some(Condition::IfAbsent),
        };
        let copied = self.storage.copy_with(from.as_ref(), to.as_ref(), copy).await;
        copied.map(drop).map_err(|e| failed(error::either(&e, from, to), e))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: object_store::RenameOptions) -> NativeResult<()> {
        let object_store::RenameOptions { target_mode, extensions: _ } = options;
        let mut rename = RenameOptions::new();
        rename.condition = match target_mode {
            RenameTargetMode::Overwrite => None,
            RenameTargetMode::Create => Some(Condition::IfAbsent),
        };
        let renamed = self.storage.rename_with(from.as_ref(), to.as_ref(), rename).await;
        renamed.map(drop).map_err(|e| failed(error::either(&e, from, to), e))
    }
}

impl fmt::Display for AsObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsObjectStore({})", self.storage.info().id)
    }
}

fn put_result(entry: Entry) -> PutResult {
    PutResult {
        e_tag: entry.etag.map(|etag| etag.to_string()),
        version: entry.version.map(|version| version.to_string()),
        extensions: Extensions::new(),
    }
}

fn about(location: &Path, entry: &Entry) -> ObjectMeta {
    ObjectMeta {
        location: location.clone(),
        // Where the storage does not know, there must still be a time.
        last_modified: entry.modified.unwrap_or(SystemTime::UNIX_EPOCH).into(),
        size: entry.size,
        e_tag: entry.etag.as_ref().map(ToString::to_string),
        version: entry.version.as_ref().map(ToString::to_string),
    }
}

fn attributes_of(entry: &Entry) -> object_store::Attributes {
    entry.metadata.as_deref().map(from_metadata).unwrap_or_default()
}

/// An item of a listing whose key or prefix is a path.
enum Found {
    Object(ObjectMeta),
    Prefix(Path),
}

fn found(items: storage_core::ListStream) -> impl Stream<Item = NativeResult<Found>> + Send + 'static {
    items.map_err(|e| failed(&Path::ROOT, e)).try_filter_map(|item| {
        let position = item.position();
        let name = position.strip_suffix('/').filter(|_| matches!(item, ListItem::Prefix(_))).unwrap_or(position);
        let path = Path::parse(name).ok().filter(|path| path.as_ref() == name && !name.is_empty());
        if path.is_none() {
            tracing::warn!("a listing leaves out a key that is no path of an object store");
        }
        ready(Ok(path.and_then(|path| match item {
            ListItem::Entry(entry) => Some(Found::Object(about(&path, &entry))),
            ListItem::Prefix(_) => Some(Found::Prefix(path)),
            _ => None,
        })))
    })
}

async fn gather(found: impl Stream<Item = NativeResult<Found>>) -> NativeResult<ListResult> {
    let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Extensions::new() };
    let mut found = std::pin::pin!(found);
    while let Some(item) = found.try_next().await? {
        match item {
            Found::Object(about) => result.objects.push(about),
            Found::Prefix(path) => result.common_prefixes.push(path),
        }
    }
    Ok(result)
}

/// Deletes the paths of a batch; each is in its place again, or what went wrong with it.
async fn delete(storage: Storage, batch: Vec<NativeResult<Path>>) -> Vec<NativeResult<Path>> {
    // What cannot be a key must not fail the others.
    let key = |path: &Path| {
        let key = Key::parse(path.as_ref())?;
        key.check(storage.info()).map(|()| key)
    };
    let checked = batch.into_iter().map(|path| {
        let path = path?;
        key(&path).map(|key| (path.clone(), key)).map_err(|e| failed(&path, e))
    });
    let checked: Vec<NativeResult<(Path, Key)>> = checked.collect();
    let keys: Vec<&Key> = checked.iter().flatten().map(|(_, key)| key).collect();
    let items = keys.iter().map(|key| (*key, DeleteOptions::new()));
    let mut done = match storage.delete_batch_with(items, BatchOptions::new()).await {
        Ok(results) => results,
        Err(e) => vec![Err(e); keys.len()],
    }
    .into_iter();
    let outcome = |checked: NativeResult<(Path, Key)>| {
        let (path, _) = checked?;
        match done.next() {
            Some(Err(e)) => Err(failed(&path, e)),
            _ => Ok(path),
        }
    };
    checked.into_iter().map(outcome).collect()
}
