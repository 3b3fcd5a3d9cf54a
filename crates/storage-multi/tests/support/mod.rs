//! A store in memory that can be made to fail, to lose answers, to take its time and to stop, as one instance of the whole meets it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    any::Any,
    collections::BTreeMap,
    env,
    future::pending,
    panic,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures_util::{StreamExt, stream};
use storage_core::{BackendInfo, Error, ErrorKind, ListStream, Object, Result, StorageBackend, async_trait};
use storage_memory::Memory;
use tokio::time::sleep;

/// How a store behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// It cannot be reached.
    pub(crate) gone: bool,
    /// It answers nothing, and does nothing.
    pub(crate) paused: bool,
    /// It takes no more writes.
    pub(crate) full: bool,
    /// Milliseconds that a call takes at most, before it is carried out and again before it is answered.
    pub(crate) delay: u64,
    /// A listing breaks off after so many items.
    pub(crate) listed: Option<usize>,
    /// How often of a thousand a call fails before it is carried out.
    pub(crate) refused: u32,
    /// How often of a thousand the answer is lost.
    pub(crate) lost: u32,
}

/// What of a store several instances share: what it holds, and how it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) memory: Memory,
    info: Arc<BackendInfo>,
    pub(crate) how: Arc<Mutex<How>>,
    rng: Arc<Mutex<Rng>>,
    /// How often each method was called, and how many bytes of values it answered.
    pub(crate) calls: Arc<Mutex<BTreeMap<&'static str, (u64, u64)>>>,
    /// The instance that uses it was killed: nothing that it began goes on.
    pub(crate) killed: Arc<Mutex<bool>>,
}

impl Part {
    pub(crate) fn new(seed: u64) -> Self {
        let memory = Memory::new();
        Self {
            info: Arc::new(memory.info().clone()),
            memory,
            how: Arc::default(),
            calls: Arc::default(),
            rng: Arc::new(Mutex::new(Rng::with_seed(seed))),
            killed: Arc::default(),
        }
    }

    /// The same store for another instance, all of whose stores stop when it is killed.
    pub(crate) fn for_instance(&self, killed: &Arc<Mutex<bool>>) -> Self {
        Self { killed: killed.clone(), ..self.clone() }
    }

    /// The same store, of which nobody knows that it deletes under conditions.
    pub(crate) fn without_conditional_delete(mut self) -> Self {
        let mut info = (*self.info).clone();
        info.capabilities.conditional_delete = false;
        self.info = Arc::new(info);
        self
    }

    pub(crate) fn set(&self, how: How) {
        *self.how.lock().unwrap() = how;
    }

    fn count<T: 'static>(&self, name: &'static str, done: &Result<T>) {
        let found = done.as_ref().ok().and_then(|done| (done as &dyn Any).downcast_ref::<Option<Object>>());
        let bytes = found.and_then(Option::as_ref).map_or(0, |object| object.entry.size);
        self.calls.lock().unwrap().entry(name).or_default().1 += bytes;
    }

    fn spoil<T: 'static>(&self, done: &mut Result<T>) {
        let Some(listed) = self.how.lock().unwrap().listed else { return };
        let items = done.as_mut().ok().and_then(|done| (done as &mut dyn Any).downcast_mut::<ListStream>());
        if let Some(items) = items {
            let whole = std::mem::replace(items, stream::empty().boxed());
            let broken = stream::iter([Err(Error::new(ErrorKind::Unavailable, "the listing broke off"))]);
            *items = whole.take(listed).chain(broken).boxed();
        }
    }

    fn chance(&self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.lock().unwrap().u32(0..1000) < of_thousand
    }

    async fn take_time(&self) {
        let delay = self.how.lock().unwrap().delay;
        if delay > 0 {
            let millis = self.rng.lock().unwrap().u64(0..=delay);
            sleep(Duration::from_millis(millis)).await;
        }
        while self.how.lock().unwrap().paused {
            sleep(Duration::from_millis(100)).await;
        }
        if *self.killed.lock().unwrap() {
            pending::<()>().await;
        }
    }

    async fn before(&self, write: bool) -> Result<()> {
        self.take_time().await;
        let how = *self.how.lock().unwrap();
        if how.gone || self.chance(how.refused) || (how.full && write) {
            return Err(Error::new(ErrorKind::Unavailable, "the store does not answer"));
        }
        Ok(())
    }

    async fn after<T>(&self, write: bool, done: Result<T>) -> Result<T> {
        self.take_time().await;
        let how = *self.how.lock().unwrap();
        if done.is_ok() && (how.gone || self.chance(how.lost)) {
            let lost = Error::new(ErrorKind::Timeout, "the answer was lost");
            return Err(if write { lost.ambiguous() } else { lost });
        }
        done
    }
}

macro_rules! faulty {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        #[async_trait]
        impl StorageBackend for Part {
            fn info(&self) -> &BackendInfo {
                &self.info
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                let write = matches!(stringify!($name), "put" | "delete" | "put_batch" | "delete_batch" | "clear" | "copy" | "rename");
                self.calls.lock().unwrap().entry(stringify!($name)).or_default().0 += 1;
                self.before(write).await?;
                let mut done = self.memory.$name($($argument),*).await;
                self.spoil(&mut done);
                self.count(stringify!($name), &done);
                self.after(write, done).await
            })*
        }
    };
}
storage_core::each_method!(faulty);

/// Runs schedules one after the other, from the number in `STORAGE_MULTI_SEED` on and as many as the variable `count` says, each in virtual
/// time. One that fails says how it is run again.
pub(crate) fn each_schedule<F: Future<Output = ()>>(
    test: &str,
    count: &str,
    default: u64,
    schedule: impl Fn(u64) -> F,
) {
    let number = |name: &str, default| env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("STORAGE_MULTI_SEED", 1);
    for seed in first..first + number(count, default) {
        let run = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(schedule(seed));
        };
        if let Err(e) = panic::catch_unwind(panic::AssertUnwindSafe(run)) {
            eprintln!("repeat: STORAGE_MULTI_SEED={seed} {count}=1 cargo test -p storage-multi --test {test}");
            panic::resume_unwind(e);
        }
    }
}
