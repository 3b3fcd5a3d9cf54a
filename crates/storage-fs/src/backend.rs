//! The backend: every operation is one hop to a thread that may block, or a few for a large value.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt;
use storage_core::{
    BackendInfo, BatchOptions, Body, Buffer, Bytes, Capabilities, CopyOptions, DeleteOptions, Entry, Error, ErrorKind,
    GetOptions, Key, ListOptions, ListStream, Object, PutOptions, RenameOptions, Result, StatOptions, StorageBackend,
    async_trait, defaults,
    pending::{Commit, Keys, Settled, Writes},
};

use crate::{Config, batch, blocking, changes::Changes, list::Listing, read::PIECE, stage::Staged, store::Store};

/// How many pieces of a stream are gathered for one hop at most.
const PIECES: usize = 4096;

/// A store in a directory. Clones share it; any number of processes can have it open at once.
#[derive(Clone)]
pub struct Fs {
    info: Arc<BackendInfo>,
    store: Arc<Store>,
    writes: Writes,
    closed: Arc<AtomicBool>,
}

impl Fs {
    /// Opens the store in this directory with the default configuration, making it where nothing is.
    ///
    /// # Errors
    /// As [`Fs::connect`].
    pub async fn open(root: impl AsRef<Path>) -> Result<Self> {
        Self::connect(Config { root: root.as_ref().to_owned(), ..Config::default() }).await
    }

    /// Opens a store, and removes what processes that are gone left staged.
    ///
    /// # Errors
    /// `Config` when the root is not a directory, holds a store of another format, or lies on a filesystem without extended
    /// attributes; `NotFound` when it does not exist and is not to be created; `PermissionDenied` when it cannot be written to
    /// and is not opened with `read_only`; `Unavailable` when the disk is full.
    pub async fn connect(config: Config) -> Result<Self> {
        let store = blocking::run(move || Store::open(&config)).await?;
        let capabilities = Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags();
        let mut info = BackendInfo::new("fs", capabilities);
        info.name = "Filesystem".into();
        info.description = env!("CARGO_PKG_DESCRIPTION").into();
        info.version = env!("CARGO_PKG_VERSION").into();
        info.limits = store.limits;
        Ok(Self { info: Arc::new(info), store: Arc::new(store), writes: Writes::new(), closed: Arc::default() })
    }

    fn store(&self) -> Result<Arc<Store>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        Ok(self.store.clone())
    }

    /// The store, once what concerns the caller and was given up has taken effect.
    async fn settled(&self, settled: Settled) -> Result<Arc<Store>> {
        settled.await?;
        self.store()
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and names may say more than a log should.
        f.debug_struct("Fs").finish_non_exhaustive()
    }
}

#[async_trait]
impl StorageBackend for Fs {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let store = self.settled(self.writes.settled(key)).await?;
        let key = key.clone();
        blocking::run(move || store.get(&key, &options)).await
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let store = self.settled(self.writes.settled(key)).await?;
        let mut staged: Option<Staged> = None;
        let mut pieces = Vec::new();
        match body.into_buffer() {
            Ok(buffer) => pieces.extend_from_slice(buffer.pieces()),
            Err(mut stream) => {
                let mut gathered = 0;
                let mut total = 0;
                while let Some(piece) = stream.next().await.transpose()? {
                    gathered += piece.len() as u64;
                    total += piece.len() as u64;
                    if total > self.info.limits.value {
                        return Err(Error::new(ErrorKind::TooLarge, "the value is larger than any file can be"));
                    }
                    pieces.push(piece);
                    // Tiny pieces take more memory than their bytes.
                    if gathered >= PIECE || pieces.len() >= PIECES {
                        let (store, pieces) = (store.clone(), std::mem::take(&mut pieces));
                        let before = staged.take();
                        let appended = blocking::run(move || store.append(before, &pieces));
                        staged = Some(appended.await?);
                        gathered = 0;
                    }
                }
            }
        }
        let name = key.clone();
        blocking::write(&self.writes, key, move |commit| put(&store, &name, staged, &pieces, options, commit)).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        let store = self.settled(self.writes.settled(key)).await?;
        let name = key.clone();
        let removed = blocking::write(&self.writes, key, move |commit| {
            let mut changes = Changes::default();
            let removed = store.remove(&name, options.condition.as_ref(), &mut changes, commit);
            changes.settle(&store.tree)?;
            removed
        });
        removed.await
    }

    async fn stat(&self, key: &Key, _: StatOptions) -> Result<Option<Entry>> {
        let store = self.settled(self.writes.settled(key)).await?;
        let key = key.clone();
        blocking::run(move || store.stat(&key)).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        let store = self.settled(self.writes.settled_prefix(&options.prefix)).await?;
        Ok(Listing::new(store, options).stream())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        let store = self.settled(self.writes.settled_keys(items.iter().map(|(key, _)| key))).await?;
        // A batch of large values does not keep their files open, of which there may be too many.
        let get = if items.len() <= batch::OPEN_VALUES {
            |store: &Arc<Store>, key: &Key, options: GetOptions, _: &mut Changes, _: &Commit| store.get(key, &options)
        } else {
            |store: &Arc<Store>, key: &Key, options: GetOptions, _: &mut Changes, _: &Commit| {
                store.get_later(key, &options)
            }
        };
        Ok(batch::run(&store, &self.writes, items, get).await)
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        let store = self.settled(self.writes.settled_keys(items.iter().map(|(key, ..)| key))).await?;
        let streamed = items.iter().any(|(_, body, _)| !body.is_in_memory());
        if streamed || options.atomic {
            return defaults::put_batch(self, items, options).await;
        }
        let whole =
            items.into_iter().filter_map(|(key, body, options)| Some((key, (body.into_buffer().ok()?, options))));
        type Whole = (Buffer, PutOptions);
        let put = |store: &Arc<Store>, key: &Key, (buffer, options): Whole, changes: &mut Changes, commit: &Commit| {
            let staged = store.append(None, buffer.pieces())?;
            store.commit(key, staged, options, changes, commit)
        };
        Ok(batch::run(&store, &self.writes, whole.collect(), put).await)
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        let store = self.settled(self.writes.settled_keys(items.iter().map(|(key, _)| key))).await?;
        if options.atomic {
            return defaults::delete_batch(self, items, options).await;
        }
        let delete = |store: &Arc<Store>, key: &Key, options: DeleteOptions, changes: &mut Changes, commit: &Commit| {
            store.remove(key, options.condition.as_ref(), changes, commit)
        };
        Ok(batch::run(&store, &self.writes, items, delete).await)
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        let store = self.settled(self.writes.settled_prefix(prefix)).await?;
        store.writing()?;
        let mut listing = Listing::to_clear(store, prefix);
        loop {
            self.store()?;
            let page = blocking::write(&self.writes, Keys::prefix(prefix), move |commit| {
                Ok((listing.clear_page(commit)?, listing))
            });
            let (more, rest) = page.await?;
            if !more {
                return Ok(());
            }
            listing = rest;
        }
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        let store = self.settled(self.writes.settled_keys([from, to])).await?;
        let (source, target) = (from.clone(), to.clone());
        blocking::write(&self.writes, to, move |commit| store.copy(&source, &target, options, commit)).await
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        let store = self.settled(self.writes.settled_keys([from, to])).await?;
        if from != to {
            let (source, target, asked) = (from.clone(), to.clone(), options.clone());
            let keys = vec![source.clone(), target.clone()];
            let renamed =
                blocking::write(&self.writes, keys, move |commit| store.rename(&source, &target, &asked, commit));
            if let Some(entry) = renamed.await? {
                return Ok(entry);
            }
        }
        defaults::rename(self, from, to, options).await
    }

    async fn health(&self) -> Result<()> {
        let store = self.store()?;
        blocking::run(move || store.health()).await
    }

    async fn disconnect(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

fn put(
    store: &Store,
    key: &Key,
    staged: Option<Staged>,
    pieces: &[Bytes],
    options: PutOptions,
    commit: &Commit,
) -> Result<Entry> {
    let staged = store.append(staged, pieces)?;
    // Syncing a large value that nobody wants any more would keep the disk busy.
    commit.check()?;
    let mut changes = Changes::default();
    let written = store.commit(key, staged, options, &mut changes, commit);
    changes.settle(&store.tree)?;
    written
}
