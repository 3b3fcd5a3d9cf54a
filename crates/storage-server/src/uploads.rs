//! Resumable uploads: what is planned, and what has come, in a store of their own that no route reads.
//!
//! `record/{id}` says what is to be written, `part/{id}/{offset}` are the bytes. A record is written before its first part and deleted before
//! them all, so parts without a record are of no use, and deleted on start.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64URL_NOPAD;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use storage_core::{Body, Error, ErrorKind, Key, Metadata, Storage};
use storage_rest_wire::{ConditionJson, Problem, code};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::Failure,
    body::Digests,
    parts::{End, Parts, bytes, checked, list},
};

/// How long it is known that an upload is complete, in seconds.
const KEPT: u64 = 600;
/// How many complete ones are known at most.
const MOST_DONE: usize = 4096;

/// What is to be written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) owner: String,
    pub(crate) key: Key,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) condition: Option<ConditionJson>,
    /// The header `Repr-Digest` of the creation.
    pub(crate) digest: Option<String>,
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Open,
    /// The value is being written. Once the server has been started anew, nobody knows whether it was.
    Finishing,
    Done {
        status: u16,
        etag: Option<String>,
        version: Option<String>,
    },
    /// It was cancelled, or has expired.
    Gone,
}

pub(crate) struct State {
    pub(crate) offset: u64,
    pub(crate) length: Option<u64>,
    pub(crate) phase: Phase,
}

pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) plan: Plan,
    /// In seconds after 1970.
    expires: AtomicU64,
    /// Its place among those that are complete, the oldest first; 0 before.
    done: AtomicU64,
    state: tokio::sync::Mutex<State>,
    /// Of the request that came last: every other ends.
    last: Mutex<CancellationToken>,
}

/// What is stored of an upload beside its bytes.
#[derive(Serialize, Deserialize)]
struct Record {
    plan: Plan,
    expires: u64,
    length: Option<u64>,
    phase: Phase,
}

type All = Mutex<HashMap<String, Arc<Upload>>>;

pub(crate) struct Uploads {
    store: Storage,
    all: OnceCell<All>,
    /// The place of the next that is complete.
    ended: AtomicU64,
}

/// The state of an upload, for one request.
pub(crate) struct Session<'u> {
    pub(crate) state: tokio::sync::MutexGuard<'u, State>,
    pub(crate) taken_over: CancellationToken,
}

impl Uploads {
    pub(crate) fn new(store: Storage) -> Self {
        // Those of an earlier run come first.
        Self { store, all: OnceCell::new(), ended: AtomicU64::new(2) }
    }

    /// Begins one.
    pub(crate) async fn create(
        &self,
        plan: Plan,
        length: Option<u64>,
        most: usize,
        lifetime: Duration,
    ) -> Result<Arc<Upload>, Failure> {
        let all = self.all().await?;
        // Whoever knows the id may go on with the upload, if it also has the token.
        let mut unique = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut unique)
            .map_err(|_| Failure::new(ErrorKind::Other, "the system has no random numbers"))?;
        let state = State { offset: 0, length, phase: Phase::Open };
        let expires = now().saturating_add(lifetime.as_secs().max(1));
        let upload = Arc::new(Upload::new(BASE64URL_NOPAD.encode(&unique), plan, expires, state));
        {
            let mut all = lock(all);
            let of_owner = |other: &&Arc<Upload>| other.plan.owner == upload.plan.owner && !other.is_done();
            if all.values().filter(of_owner).count() >= most {
                let detail = "too many uploads are open; complete or cancel one of them";
                return Err(Failure::new(ErrorKind::RateLimited, detail));
            }
            all.insert(upload.id.clone(), upload.clone());
        }
        let saved = self.save(&upload, &*upload.state.lock().await).await;
        if saved.is_err() {
            lock(all).remove(&upload.id);
        }
        saved.map(|()| upload)
    }

    /// The upload with this id, of this token.
    pub(crate) async fn find(&self, id: &str, owner: &str) -> Result<Arc<Upload>, Failure> {
        let found = lock(self.all().await?).get(id).cloned();
        found.filter(|upload| upload.plan.owner == owner && upload.expires() > now()).ok_or_else(no_upload)
    }

    /// Stores what comes, part for part. On an error the offset tells how much is stored.
    pub(crate) async fn append(&self, upload: &Upload, state: &mut State, parts: Parts) -> Result<(), Failure> {
        let mut begun = Vec::new();
        while let Some(part) = parts.next().await {
            let key = upload.part(state.offset);
            let entry = self.store.put(key.as_str(), Body::stream(part)).await.map_err(internal)?;
            begun.push((key, state.offset));
            state.offset += entry.size;
        }
        match parts.end() {
            End::Whole => Ok(()),
            End::TakenOver => {
                let detail = "another request has come for this upload; ask for its offset";
                Err(Failure::new(ErrorKind::Conflict, detail).code(code::BROKEN_BODY))
            }
            End::Failed(failure) => {
                if failure.0.is(code::WRONG_DIGEST) {
                    // The last first, so that what is left has no gap.
                    for (key, offset) in begun.into_iter().rev() {
                        self.store.delete(key.as_str()).await.map_err(internal)?;
                        state.offset = offset;
                    }
                }
                Err(failure)
            }
        }
    }

    /// All bytes of an upload, as often as they are needed.
    pub(crate) fn body(&self, upload: &Upload, len: u64, failed: Arc<OnceLock<Problem>>) -> Body {
        let (store, prefix, digest) = (self.store.clone(), upload.parts(), upload.plan.digest.clone());
        Body::replayable(len, move || {
            let digests = digest.as_deref().map_or_else(Digests::default, |header| {
                // It was read when the upload was created.
                Digests::parse("repr-digest", header).unwrap_or_default()
            });
            checked(bytes(store.clone(), prefix.clone()), digests, failed.clone())
        })
    }

    /// Keeps the state of an upload.
    pub(crate) async fn save(&self, upload: &Upload, state: &State) -> Result<(), Failure> {
        let (plan, phase) = (upload.plan.clone(), state.phase.clone());
        let record = Record { plan, expires: upload.expires(), length: state.length, phase };
        // Texts, numbers and maps with texts as keys.
        let json = serde_json::to_vec(&record).unwrap_or_default();
        self.store.put(format!("record/{}", upload.id).as_str(), json).await.map(drop).map_err(internal)
    }

    /// Keeps what became of an upload for a while, without its bytes.
    pub(crate) async fn done(&self, upload: &Upload, state: &mut State, phase: Phase) {
        state.phase = phase;
        upload.expires.fetch_min(now() + KEPT, Ordering::AcqRel);
        upload.done.store(self.ended.fetch_add(1, Ordering::AcqRel), Ordering::Release);
        let saved = self.save(upload, state).await;
        let deleted = self.store.clear_prefix(&upload.parts()).await.map_err(internal);
        if saved.and(deleted).is_err() {
            tracing::warn!(target: "storage_server", "the end of an upload cannot be kept; it is left for the next start");
        }
        for forgotten in self.beyond(upload) {
            forgotten.expires.store(0, Ordering::Release);
            // One that a request is at work on has to wait for the sweep.
            if let Ok(mut state) = forgotten.state.try_lock()
                && self.remove(&forgotten, &mut state).await.is_err()
            {
                return;
            }
        }
    }

    /// The complete uploads that are too many to be known any longer, but never this one.
    fn beyond(&self, last: &Upload) -> Vec<Arc<Upload>> {
        let Some(all) = self.all.get() else { return Vec::new() };
        let all = lock(all);
        let done = || all.values().filter(|upload| upload.is_done());
        let many = done().count().saturating_sub(MOST_DONE);
        if many == 0 {
            return Vec::new();
        }
        let mut done: Vec<_> = done().filter(|upload| upload.id != last.id).cloned().collect();
        done.sort_by_key(|upload| upload.done.load(Ordering::Acquire));
        done.truncate(many);
        done
    }

    /// Deletes an upload and its bytes.
    pub(crate) async fn remove(&self, upload: &Upload, state: &mut State) -> Result<(), Failure> {
        state.phase = Phase::Gone;
        self.store.delete(format!("record/{}", upload.id).as_str()).await.map_err(internal)?;
        if let Some(all) = self.all.get() {
            lock(all).remove(&upload.id);
        }
        self.store.clear_prefix(&upload.parts()).await.map_err(internal)
    }

    /// Deletes what has expired. What a request is at work on has to wait for the next time.
    pub(crate) async fn sweep(&self) -> Result<(), Failure> {
        let all = self.all().await?;
        let expired: Vec<_> = lock(all).values().filter(|upload| upload.expires() <= now()).cloned().collect();
        for upload in expired {
            upload.last().cancel();
            if let Ok(mut state) = upload.state.try_lock() {
                self.remove(&upload, &mut state).await?;
            }
        }
        Ok(())
    }

    /// All uploads, as they stand in the store when they are asked for first.
    async fn all(&self) -> Result<&All, Failure> {
        self.all.get_or_try_init(|| self.load()).await.map_err(internal)
    }

    async fn load(&self) -> Result<All, Error> {
        let (mut all, mut known) = (HashMap::new(), HashSet::new());
        let keys = list(&self.store, "record/").map_ok(|(key, _)| key).try_collect::<Vec<_>>().await?;
        for key in keys {
            let id = key.as_str().trim_start_matches("record/").to_owned();
            let Some(json) = self.store.get(&key).await? else { continue };
            known.insert(id.clone());
            match serde_json::from_slice::<Record>(&json) {
                Ok(Record { plan, expires, length, phase }) => {
                    all.insert(id.clone(), Upload::new(id, plan, expires, State { offset: 0, length, phase }));
                }
                Err(e) => {
                    tracing::warn!(target: "storage_server", id, error = %e, "the record of an upload cannot be read; it is left alone");
                }
            }
        }
        let mut useless = Vec::new();
        let mut parts = list(&self.store, "part/");
        while let Some((key, size)) = parts.try_next().await? {
            let mut names = key.as_str().split('/').skip(1);
            let (id, offset) = (names.next().unwrap_or_default(), names.next().and_then(|at| at.parse().ok()));
            match all.get_mut(id).map(|upload| upload.state.get_mut()) {
                Some(state) if offset == Some(state.offset) => state.offset += size,
                None if known.contains(id) => {}
                _ => useless.push(key),
            }
        }
        for key in useless {
            self.store.delete(&key).await?;
        }
        for upload in all.values_mut() {
            let state = upload.state.get_mut();
            if matches!(state.phase, Phase::Done { .. }) {
                // Its bytes have gone.
                state.offset = state.length.unwrap_or_default();
                upload.done.store(1, Ordering::Release);
            }
        }
        tracing::debug!(target: "storage_server", uploads = all.len(), "uploads were found in their store");
        Ok(Mutex::new(all.into_iter().map(|(id, upload)| (id, Arc::new(upload))).collect()))
    }
}

impl Upload {
    fn new(id: String, plan: Plan, expires: u64, state: State) -> Self {
        let (expires, done) = (AtomicU64::new(expires), AtomicU64::new(0));
        Self { id, plan, expires, done, state: tokio::sync::Mutex::new(state), last: Mutex::default() }
    }

    /// Ends whatever request is at work on it, and takes its place.
    pub(crate) async fn enter(&self) -> Session<'_> {
        let taken_over = CancellationToken::new();
        std::mem::replace(&mut *self.last(), taken_over.clone()).cancel();
        Session { state: self.state.lock().await, taken_over }
    }

    /// Seconds until it is deleted.
    pub(crate) fn age_left(&self) -> u64 {
        self.expires().saturating_sub(now())
    }

    fn expires(&self) -> u64 {
        self.expires.load(Ordering::Acquire)
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire) > 0
    }

    fn last(&self) -> MutexGuard<'_, CancellationToken> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> String {
        format!("part/{}/", self.id)
    }

    /// The key of a part. Their order is that of their offsets.
    fn part(&self, offset: u64) -> String {
        format!("part/{}/{offset:020}", self.id)
    }
}

/// An error of the store of uploads, whose keys are nobody's business.
fn internal(e: Error) -> Failure {
    let mut failure = Failure::from(e);
    (failure.0.key, failure.0.ambiguous) = (None, false);
    failure
}

pub(crate) fn no_upload() -> Failure {
    let detail = "there is no such upload: it has expired, was cancelled, or is another token's; begin it again";
    Failure::new(ErrorKind::NotFound, detail).code(code::NO_UPLOAD)
}

fn lock(all: &All) -> MutexGuard<'_, HashMap<String, Arc<Upload>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").field("store", &self.store.info().name).finish_non_exhaustive()
    }
}
