//! Whichever call to the backend fails, and wherever a writer dies: nothing acknowledged is lost, and everything reads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    pin::pin,
    task::Poll,
};

use futures_util::{TryStreamExt, stream};
use storage_conformance::Faults;
use storage_core::{Body, Bytes, DeleteOptions, Entry, Error, GetOptions, Key, Storage, StorageBackend, VersionId};
use storage_layer_versioned::{Versioned, VersionedLayer};
use storage_memory::Memory;

fn over<B: StorageBackend>(backend: B, max: usize) -> Storage<Versioned<B>> {
    Storage::typed(backend).layer(VersionedLayer::new().max_versions(max))
}

/// What must be, and what may be, under a key.
#[derive(Default)]
struct Model {
    /// Acknowledged, and not deleted since.
    versions: BTreeMap<VersionId, Bytes>,
    /// One of these is the value.
    values: BTreeSet<Option<Bytes>>,
}

impl Model {
    /// After a change that was acknowledged, or failed with this error.
    fn changed(&mut self, to: Option<Bytes>, failure: Option<&Error>) {
        match failure {
            None => self.values = [to].into(),
            Some(e) if e.is_ambiguous() => drop(self.values.insert(to)),
            Some(_) => {}
        }
    }

    /// Looks at the store without faults, as a process that starts after the crash.
    async fn check(&mut self, memory: &Memory, key: &str) {
        let storage = over(memory.clone(), usize::MAX);
        let value = storage.get(key).await.unwrap();
        assert!(self.values.contains(&value), "saw {value:?}, expected one of {:?}", self.values);
        // What was seen once stays.
        self.values = [value.clone()].into();
        let current = storage.stat(key).await.unwrap();
        assert_eq!(current.as_ref().map(|entry| entry.size), value.map(|value| value.len() as u64));
        let listed: Vec<Entry> = storage.versions(key).await.unwrap().try_collect().await.unwrap();
        let mut seen = BTreeSet::new();
        for entry in &listed {
            let version = entry.version.clone().unwrap();
            let read = GetOptions::new().version(version.clone());
            let value = storage.get_with(key, read).await.unwrap().expect("a listed version can be read");
            assert_eq!(self.versions.get(&version).unwrap_or(&value), &value);
            assert!(seen.insert(version), "a version is listed once");
        }
        if let Some(current) = current {
            assert_eq!(listed[0].version, current.version, "the value is the newest version");
            // A write whose answer was lost has happened all the same.
            self.versions.insert(current.version.unwrap(), storage.get(key).await.unwrap().unwrap());
        }
        let lost: Vec<_> = self.versions.keys().filter(|version| !seen.contains(*version)).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        let keys: Vec<Key> = storage.keys().await.unwrap().try_collect().await.unwrap();
        assert!(keys.iter().all(|key| ["a", "b"].contains(&key.as_str())), "{keys:?}");
    }
}

fn streamed(value: &Bytes) -> Body {
    Body::stream(stream::iter([Ok(value.slice(..7)), Ok(value.slice(7..))]))
}

#[tokio::test]
async fn failing_calls_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut acknowledged, mut failed) = (0, 0);
    for round in 0..6 {
        let seen = failing_calls(seed.wrapping_add(round)).await;
        acknowledged += seen.0;
        failed += seen.1;
    }
    // Of all rounds: a single one may be unlucky.
    println!("{acknowledged} writes acknowledged, {failed} calls failed");
    assert!(acknowledged > 100 && failed > 100);
}

/// How many writes were acknowledged, and how many calls below failed.
async fn failing_calls(seed: u64) -> (u64, u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let memory = Memory::new();
    let faults = Faults::new(memory.clone(), seed).before(0.1).after(0.1).reset(0.05).short_body(0.05);
    let storage = over(faults, usize::MAX);
    let mut models = BTreeMap::from(["a", "b"].map(|key| (key, Model { values: [None].into(), ..Model::default() })));
    let mut acknowledged = 0;
    for step in 0..120 {
        let (key, other) = if rng.bool() { ("a", "b") } else { ("b", "a") };
        let value = Bytes::from(format!("value {step}"));
        let (to, written) = match rng.u8(..10) {
            0..5 => (Some(value.clone()), storage.put(key, value).await.map(Some)),
            5 => {
                let value: Bytes = [&value[..], &vec![b' '; (1 << 20) + 1]].concat().into();
                (Some(value.clone()), storage.put(key, streamed(&value)).await.map(Some))
            }
            6 | 7 => (None, storage.delete(key).await.map(|()| None)),
            8 => match models[other].values.first().cloned().flatten() {
                Some(value) => (Some(value), storage.copy(other, key).await.map(Some)),
                None => continue,
            },
            _ => {
                let model = models.get_mut(key).unwrap();
                let Some(version) = model.versions.keys().nth(rng.usize(..=model.versions.len())).cloned() else {
                    continue;
                };
                model.versions.remove(&version);
                // It may have been the value.
                model.values.insert(None);
                let _ = storage.delete_with(key, DeleteOptions::new().version(version)).await;
                model.check(&memory, key).await;
                continue;
            }
        };
        let model = models.get_mut(key).unwrap();
        model.changed(to.clone(), written.as_ref().err());
        if let (Some(value), Ok(Some(entry))) = (to, written) {
            acknowledged += 1;
            model.versions.insert(entry.version.unwrap(), value);
        }
        model.check(&memory, key).await;
    }
    (acknowledged, storage.backend().get_ref().planted())
}

#[tokio::test]
async fn failing_prunes_are_made_good_by_the_next_write() {
    let memory = Memory::new();
    let failing = over(Faults::new(memory.clone(), 1).before(1.0).only(["delete"]), 3);
    let working = over(memory.clone(), 3);
    for n in 0..10 {
        failing.put("a", format!("{n}")).await.unwrap();
    }
    let all: Vec<Entry> = working.versions("a").await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.len(), 10);
    let newest = working.put("a", "new").await.unwrap();
    let kept: Vec<Entry> = working.versions("a").await.unwrap().try_collect().await.unwrap();
    assert_eq!(kept[0].version, newest.version);
    assert_eq!(kept[1..], all[..2]);
}

#[tokio::test]
async fn a_writer_that_dies_anywhere_loses_nothing() {
    let memory = Memory::new();
    let storage = over(Faults::new(memory.clone(), 7).latency(2), usize::MAX);
    let mut model = Model { values: [None].into(), ..Model::default() };
    let (mut dropped, mut done) = (0, 0);
    for n in 0..300 {
        let value = Bytes::from(format!("value {n}"));
        let large: Bytes = [&value[..], &vec![b' '; (1 << 20) + 1]].concat().into();
        let (to, body) = match n % 4 {
            0 => (None, None),
            1 => (Some(large.clone()), Some(streamed(&large))),
            _ => (Some(value.clone()), Some(value.into())),
        };
        let change = async {
            match body {
                Some(body) => storage.put("a", body).await.map(Some),
                None => storage.delete("a").await.map(|()| None),
            }
        };
        match polled(change, n / 12).await {
            Some(result) => {
                let entry = result.unwrap();
                done += 1;
                model.changed(to.clone(), None);
                if let (Some(entry), Some(value)) = (entry, to) {
                    model.versions.insert(entry.version.unwrap(), value);
                }
            }
            None => {
                dropped += 1;
                model.values.insert(to);
            }
        }
        model.check(&memory, "a").await;
    }
    println!("{dropped} writers died, {done} did not");
    assert!(dropped > 50 && done > 50, "{dropped} writers died, {done} did not");
}

/// Polls so many times, and then drops the future.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..=times {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
    }
    None
}
