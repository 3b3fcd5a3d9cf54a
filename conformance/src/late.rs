//! Races of writes that are dropped against the calls that follow: each round drops one write at a random instant, makes one later
//! call, and looks twice, at once and when all is quiet.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{StreamExt, TryStreamExt, stream};
use storage_core::{
    BatchOptions, Body, Bytes, Error, ErrorKind, Etag, GetOptions, ListItem, ListOptions, PutOptions, Result, Storage,
};
use tokio::time::{sleep, timeout};

use crate::{
    Context, Outcome,
    assert::expect,
    selection::variable,
    support::{all, noise, pieces},
};

/// How many rounds all checks of the group `dropped` make together, unless `STORAGE_CONFORMANCE_DROPS` says otherwise.
const DROPS: usize = 300;
const CHECKS: usize = 6;
/// How many rounds run at once.
const TASKS: usize = 8;
/// How often a later call is made again that fails and may succeed.
const TRIES: usize = 20;

/// A write to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put,
    StreamedPut,
    Delete,
    Copy,
    Rename,
    PutBatch,
    DeleteBatch,
    Clear,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Later {
    Write(Write),
    Get,
    Stat,
    List,
    GetBatch,
}

const LATER: [Later; 13] = [
    Later::Write(Write::Put),
    Later::Write(Write::StreamedPut),
    Later::Write(Write::Delete),
    Later::Write(Write::Copy),
    Later::Write(Write::Rename),
    Later::Write(Write::PutBatch),
    Later::Write(Write::DeleteBatch),
    Later::Write(Write::Clear),
    Later::Get,
    Later::Stat,
    Later::List,
    Later::List,
    Later::GetBatch,
];

/// Whose write it is, and so which value it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Dropped,
    Later,
}

/// When the write is dropped.
#[derive(Clone, Copy, Debug)]
enum At {
    /// After so many polls.
    Polls(u32),
    /// So long after the first poll, without another.
    Left(Duration),
    /// After so long of being driven, as by a timeout.
    Driven(Duration),
}

/// The keys and values of one round. `a` is what all is about, `b` the source of the write that is dropped, and `elsewhere` that of
/// the later call. All values have the same length.
struct Round {
    s: Storage,
    below: String,
    values: Arc<Values>,
}

struct Values {
    old: Bytes,
    dropped: Bytes,
    later: Bytes,
    source: Bytes,
    elsewhere: Bytes,
}

/// What a key holds, by the name of the value.
type Seen = Option<(&'static str, Option<Etag>)>;

/// A round that is over but for the last look.
struct Open {
    round: Round,
    told: String,
    seen: [Option<&'static str>; 2],
}

/// Drops these writes at random instants, and fails if one lands behind the answer to a later call.
pub(crate) async fn race(c: &Context, dropped: &'static [Write]) -> Outcome {
    let asked = variable("DROPS")?.map(|text| text.parse::<usize>());
    let asked = asked.transpose().map_err(|e| format!("STORAGE_CONFORMANCE_DROPS: {e}"))?.unwrap_or(DROPS);
    let rounds = asked.div_ceil(CHECKS);
    let sizes = [c.size(100), c.size(300_000)].map(|size| Arc::new(Values::new(size)));
    let begun = Instant::now();
    let probe = Round { s: c.storage.clone(), below: "probe/".into(), values: sizes[1].clone() };
    probe.set_up().await?;
    probe.write(dropped[0], Caller::Dropped).await?;
    let usual = begun.elapsed() / 3;
    let mut seeds = c.rng();
    let seed = seeds.u64(..);
    let tasks = (0..TASKS).map(|task| {
        let (s, sizes, mut rng) = (c.storage.clone(), sizes.clone(), Rng::with_seed(seed.wrapping_add(task as u64)));
        async move {
            let mut open = Vec::new();
            for n in (task..rounds).step_by(TASKS) {
                let values = sizes[usize::from(rng.u8(..6) == 0)].clone();
                let round = Round { s: s.clone(), below: format!("{n}/"), values };
                let time = usual.mul_f64(1.5 * rng.f64());
                let instant = match rng.u8(..8) {
                    0..3 => At::Polls(1),
                    3 => At::Polls(rng.u32(2..6)),
                    4..6 => At::Left(time.min(Duration::from_millis(50))),
                    _ => At::Driven(time),
                };
                // One after the other, so that few rounds suffice for every pair.
                let later = LATER[(n / dropped.len()) % LATER.len()];
                open.push(round.run(dropped[n % dropped.len()], instant, later).await?);
            }
            Ok(open)
        }
    });
    let open: Vec<Open> = all(tasks).await?.into_iter().flatten().collect();
    // What is still on its way needs about as long as a write does.
    sleep((2 * usual).clamp(Duration::from_millis(20), Duration::from_secs(1))).await;
    let looks = stream::iter(open).map(Open::look_again).buffer_unordered(TASKS);
    looks.try_collect::<Vec<()>>().await.map(drop)
}

impl Values {
    fn new(size: usize) -> Self {
        let value = |seed| noise(size, seed);
        Self { old: value(1), dropped: value(2), later: value(3), source: value(4), elsewhere: value(5) }
    }

    fn name(&self, seen: &Bytes) -> Option<&'static str> {
        let names = [
            (&self.old, "the old value"),
            (&self.dropped, "the value of the dropped write"),
            (&self.later, "the value of the later call"),
            (&self.source, "the value of the source"),
            (&self.elsewhere, "the value of the later call"),
        ];
        names.into_iter().find(|(value, _)| *value == seen).map(|(_, name)| name)
    }
}

impl Round {
    async fn run(self, dropped: Write, instant: At, later: Later) -> Outcome<Open> {
        self.set_up().await?;
        drop_at(instant, self.write(dropped, Caller::Dropped)).await;
        let told = format!(
            "put {a:?} and {b:?}; drop {dropped:?} at {instant:?}; {later:?}",
            a = self.key("a"),
            b = self.key("b"),
        );
        let mut answer = self.call(later).await;
        for _ in 0..TRIES {
            match &answer {
                Err(e) if e.is_retryable() => sleep(Duration::from_millis(5)).await,
                _ => break,
            }
            answer = self.call(later).await;
        }
        let answer = answer?;
        let [a, b] = [self.read("a").await?, self.read("b").await?];
        let [name_a, name_b] = [&a, &b].map(|seen| seen.as_ref().map(|(name, _)| *name));
        let same = match &answer {
            Answer::Written(expected) => name_a == *expected,
            Answer::Read(seen) => name_a == seen.as_ref().map(|(name, _)| *name),
            Answer::Described(seen) => match (seen, &a) {
                (None, None) => true,
                (Some(Some(seen)), Some((_, Some(now)))) => seen == now,
                (seen, now) => seen.is_some() == now.is_some(),
            },
        };
        expect(same, || format!("{told}, which answers {answer:?}; get: expected the same, saw {}", shown(name_a)))?;
        Ok(Open { round: self, told, seen: [name_a, name_b] })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.below)
    }

    /// Not below the prefix that is cleared.
    fn elsewhere(&self) -> String {
        format!("elsewhere {}other", self.below)
    }

    async fn set_up(&self) -> Result<()> {
        for _ in 0..TRIES {
            match self.fill().await {
                // A store on a network may break a connection of its own accord.
                Err(e) if e.is_retryable() => sleep(Duration::from_millis(5)).await,
                done => return done,
            }
        }
        self.fill().await
    }

    async fn fill(&self) -> Result<()> {
        let Values { old, source, elsewhere, .. } = &*self.values;
        self.s.put(self.key("a"), old.clone()).await?;
        self.s.put(self.key("b"), source.clone()).await?;
        self.s.put(self.elsewhere(), elsewhere.clone()).await.map(drop)
    }

    /// A write by which `a` gets another value, or none. As a later call it takes what lies elsewhere.
    async fn write(&self, write: Write, caller: Caller) -> Result<Option<&'static str>> {
        let is_later = caller == Caller::Later;
        let values = &*self.values;
        let (a, b) = (self.key("a"), self.key("b"));
        let value = if is_later { &values.later } else { &values.dropped };
        let source = if is_later { self.elsewhere() } else { b.clone() };
        let mut expected = values.name(value);
        match write {
            Write::Put => drop(self.s.put(a, value.clone()).await?),
            Write::StreamedPut => {
                let body = Body::stream(pieces(value.clone(), value.len().div_ceil(3).max(1)));
                self.s.put(a, body).await?;
            }
            Write::Copy => drop(self.s.copy(source, a).await?),
            Write::Rename => match self.s.rename(source, a).await {
                // An earlier try has moved it.
                Err(e) if e.kind() == ErrorKind::NotFound && is_later => {}
                done => drop(done?),
            },
            Write::PutBatch => {
                let items = [a, b].map(|key| (key, value.clone(), PutOptions::new()));
                for done in self.s.put_batch_with(items, BatchOptions::new()).await? {
                    done?;
                }
            }
            Write::Delete => {
                self.s.delete(a).await?;
                expected = None;
            }
            Write::DeleteBatch => {
                self.s.delete_batch([a, b]).await?;
                expected = None;
            }
            Write::Clear => {
                self.s.clear_prefix(&self.below).await?;
                expected = None;
            }
        }
        Ok(expected)
    }

    async fn call(&self, later: Later) -> Result<Answer> {
        let a = self.key("a");
        Ok(match later {
            Later::Write(write) => Answer::Written(self.write(write, Caller::Later).await?),
            Later::Get => Answer::Read(self.read("a").await?),
            Later::GetBatch => {
                let found = self.s.get_batch([&a]).await?;
                let name = |value| Ok::<_, Error>((self.named(value)?, None));
                Answer::Read(found.get(a.as_str()).map(name).transpose()?)
            }
            Later::Stat => Answer::Described(self.s.stat(&a).await?.map(|entry| entry.etag)),
            Later::List => {
                let items = self.s.list_with(ListOptions::new().prefix(&self.below)).await?;
                let items: Vec<ListItem> = items.try_collect().await?;
                let mut entries = items.into_iter().filter_map(ListItem::into_entry);
                Answer::Described(entries.find(|entry| entry.key.as_str() == a).map(|entry| entry.etag))
            }
        })
    }

    async fn read(&self, name: &str) -> Result<Seen> {
        let mut tries = 0;
        loop {
            let found = async {
                let found = self.s.open(self.key(name), GetOptions::new().prefer_buffered(true)).await?;
                let Some(object) = found else { return Ok(None) };
                let value = object.body.bytes(u64::MAX).await?;
                Ok(Some((self.named(&value)?, object.entry.etag)))
            };
            match found.await {
                Err(e) if Error::is_retryable(&e) && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    fn named(&self, value: &Bytes) -> Result<&'static str> {
        let torn = || Error::new(ErrorKind::Corrupt, format!("{} bytes that nobody has written", value.len()));
        self.values.name(value).ok_or_else(torn)
    }
}

/// What the later call says about `a`: what it holds now, what was read, or the etag of what was found.
#[derive(Debug)]
enum Answer {
    Written(Option<&'static str>),
    Read(Seen),
    Described(Option<Option<Etag>>),
}

impl Open {
    async fn look_again(self) -> Outcome {
        for (key, before) in ["a", "b"].into_iter().zip(self.seen) {
            let now = self.round.read(key).await?.map(|(name, _)| name);
            expect(now == before, || {
                let key = self.round.key(key);
                let told = &self.told;
                format!("{told}; get {key:?}: {}; later: expected the same, saw {}", shown(before), shown(now))
            })?;
        }
        Ok(())
    }
}

fn shown(name: Option<&str>) -> &str {
    name.unwrap_or("no value")
}

/// Drives the future up to this instant and drops it.
async fn drop_at<F: Future>(instant: At, future: F) {
    let mut future = pin!(future);
    let mut poll_once = async || poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
    match instant {
        At::Polls(polls) => {
            for _ in 0..polls {
                if poll_once().await {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        At::Left(time) => {
            if !poll_once().await {
                nap(time).await;
            }
        }
        // The clock of the runtime ticks in milliseconds.
        At::Driven(time) if time < Duration::from_millis(2) => {
            let begun = Instant::now();
            while !poll_once().await && begun.elapsed() < time {
                nap(Duration::from_micros(50)).await;
            }
        }
        At::Driven(time) => drop(timeout(time, future).await),
    }
}

async fn nap(time: Duration) {
    if time < Duration::from_millis(2) {
        thread::sleep(time);
    } else {
        sleep(time).await;
    }
}
