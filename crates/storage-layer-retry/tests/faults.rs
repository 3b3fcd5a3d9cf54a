//! Over a backend that fails often: every outcome is one the contract allows, and nothing is lost. Time is virtual.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use storage_conformance::Faults;
use storage_core::{
    Body, Bytes, Condition, Entry, Error, ErrorKind, GetOptions, Key, PutOptions, Query, Result, Storage,
};
use storage_layer_retry::{Retry, RetryLayer};
use storage_memory::Memory;
use tokio::time::Instant;

type Stack = Storage<Retry<Faults<Memory>>>;

fn stack(faults: Faults<Memory>, layer: RetryLayer) -> Stack {
    Storage::typed(faults).layer(layer)
}

fn patient() -> RetryLayer {
    RetryLayer::new().retries(50).budget(Duration::from_secs(100_000)).seed(1)
}

/// What may be stored under a key: after an ambiguous failure more than one value.
type Model = BTreeMap<String, Vec<Option<Bytes>>>;

#[tokio::test(start_paused = true)]
async fn thirty_percent_of_calls_failing_before_and_after_lose_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let memory = Memory::new();
    let faults = Faults::new(memory.clone(), seed).before(0.3).after(0.3).reset(0.1);
    let storage = stack(faults, RetryLayer::new().seed(seed));
    let mut model = Model::new();
    for step in 0..100_000 {
        let key = format!("k{}", rng.u8(..20));
        let allowed = model.entry(key.clone()).or_insert_with(|| vec![None]);
        match rng.u8(..4) {
            0 => {
                let value = Bytes::from(format!("{step}"));
                settle(allowed, storage.put(&key, value.clone()).await, Some(value));
            }
            1 => settle(allowed, storage.delete(&key).await, None),
            2 => {
                let value = Bytes::from(format!("{step}"));
                let once = PutOptions::new().condition(Condition::IfAbsent);
                match storage.put_with(&key, value.clone(), once).await {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => allowed.retain(Option::is_some),
                    result => {
                        // If it happened, the key was absent; if that is impossible, it did not happen.
                        assert!(result.is_err() || allowed.contains(&None), "{key} {allowed:?}");
                        settle(allowed, result, Some(value));
                    }
                }
                assert!(!allowed.is_empty(), "`AlreadyExists` of an absent key");
            }
            _ => {
                if let Ok(seen) = storage.get(&key).await {
                    assert!(allowed.contains(&seen), "{key}: {seen:?} is none of {allowed:?}");
                    *allowed = vec![seen];
                }
            }
        }
    }
    let below = Storage::new(memory);
    for (key, allowed) in model {
        let seen = below.get(&key).await.unwrap();
        assert!(allowed.contains(&seen), "{key}: {seen:?} is none of {allowed:?}");
    }
}

fn settle<T>(allowed: &mut Vec<Option<Bytes>>, result: Result<T>, value: Option<Bytes>) {
    match result {
        Ok(_) => *allowed = vec![value],
        Err(e) => {
            assert!(e.is_retryable(), "{e:?}");
            if e.is_ambiguous() {
                allowed.push(value);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_bodies_and_listings_go_on_where_they_broke_off() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    let keys: Vec<String> = (0..200).map(|i| format!("k{i:03}")).collect();
    below.put_batch(keys.iter().map(|key| (key, key.repeat(10)))).await?;
    let faults = Faults::new(memory, 3).reset(0.9).short_body(0.2);
    let storage = stack(faults, patient());
    let listed: Vec<Key> = storage.keys().await?.try_collect().await?;
    assert!(listed.iter().map(Key::as_str).eq(keys.iter().map(String::as_str)));
    let queried: Vec<Entry> = storage.query(Query::new().limit(150)).await?.try_collect().await?;
    assert!(queried.iter().map(|e| e.key.as_str()).eq(keys[..150].iter().map(String::as_str)));
    for key in &keys {
        let body = storage.open(key, GetOptions::new().range(3..)).await?.unwrap().body;
        assert_eq!(body.bytes(u64::MAX).await?, key.repeat(10).as_bytes()[3..]);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_only_what_failed_is_sent_again_and_the_last_of_equal_keys_wins() -> Result<()> {
    for seed in 0..50 {
        let memory = Memory::new();
        let faults = Faults::new(memory.clone(), seed).before(0.3).after(0.3);
        let storage = stack(faults, patient());
        storage.put_batch([("a", "1"), ("b", "2"), ("a", "3")]).await?;
        let below = Storage::new(memory);
        assert_eq!(below.get("a").await?.as_deref(), Some(&b"3"[..]));
        assert_eq!(below.get("b").await?.as_deref(), Some(&b"2"[..]));
        assert_eq!(storage.get_batch(["a", "b", "c"]).await?.len(), 2);
        storage.delete_batch(["a", "b"]).await?;
        assert!(!below.has("a").await? && !below.has("b").await?);
    }
    Ok(())
}

/// How many calls reach the backend when each fails like this.
async fn calls<T>(error: fn() -> Error, layer: RetryLayer, run: impl AsyncFn(Stack) -> T) -> u64 {
    let storage = stack(Faults::new(Memory::new(), 1).before(1.0).error(error), layer);
    run(storage.clone()).await;
    storage.backend().get_ref().planted()
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "down")
}

fn lost() -> Error {
    Error::new(ErrorKind::Timeout, "no answer").ambiguous()
}

#[tokio::test(start_paused = true)]
async fn only_what_may_be_repeated_is_repeated() {
    let layer = || RetryLayer::new().retries(2);
    assert_eq!(calls(unavailable, layer(), async |s| s.get("k").await).await, 3);
    assert_eq!(calls(lost, layer(), async |s| s.put("k", "v").await).await, 3);
    let denied = || Error::new(ErrorKind::PermissionDenied, "no");
    assert_eq!(calls(denied, layer(), async |s| s.get("k").await).await, 1);
    let once = || PutOptions::new().condition(Condition::IfAbsent);
    assert_eq!(calls(unavailable, layer(), async |s| s.put_with("k", "v", once()).await).await, 3);
    assert_eq!(calls(lost, layer(), async |s| s.put_with("k", "v", once()).await).await, 1);
    let body = || Body::stream(stream::iter([Ok(Bytes::from_static(b"v"))]));
    assert_eq!(calls(unavailable, layer(), async |s| s.put("k", body()).await).await, 1);
    let again = || Body::replayable(1, || stream::iter([Ok(Bytes::from_static(b"v"))]));
    assert_eq!(calls(unavailable, layer(), async |s| s.put("k", again()).await).await, 3);
    assert_eq!(calls(unavailable, RetryLayer::new().retries(0), async |s| s.get("k").await).await, 1);
}

/// What a backend reads of a replayable body is always the whole of it.
#[tokio::test(start_paused = true)]
async fn a_replayable_body_is_sent_anew() {
    let memory = Memory::new();
    let faults = Faults::new(memory.clone(), 5).before(0.4).after(0.3);
    let storage = stack(faults, patient());
    for n in 0..100_u8 {
        let pieces = move || stream::iter((0..5).map(move |i| Ok(Bytes::from(vec![n.wrapping_add(i); 1000]))));
        storage.put("k", Body::replayable(5000, pieces)).await.unwrap();
        let expected: Vec<u8> = (0..5).flat_map(|i| vec![n.wrapping_add(i); 1000]).collect();
        assert_eq!(Storage::new(memory.clone()).get("k").await.unwrap().unwrap(), expected);
    }
}

#[test]
fn the_layer_is_read_from_a_configuration() {
    let read = |json: &str| serde_json::from_str::<RetryLayer>(json).map_err(|e| e.to_string());
    let layer = read(r#"{"retries": 9, "max_ms": 1000, "budget_ms": 60000}"#).unwrap();
    let same = RetryLayer::new().retries(9).max(Duration::from_secs(1)).budget(Duration::from_secs(60));
    assert_eq!(format!("{layer:?}"), format!("{same:?}"));
    assert_eq!(format!("{:?}", read("{}").unwrap()), format!("{:?}", RetryLayer::new()));
    for (wrong, known) in
        [(r#"{"retry": 9}"#, "`retries`"), (r#"{"retries": -1}"#, "u32"), (r#"{"max_ms": "1s"}"#, "u64")]
    {
        let message = read(wrong).unwrap_err();
        assert!(message.contains(known), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_grow_and_stay_below_their_limit_and_the_budget() {
    let begun = Instant::now();
    let layer = RetryLayer::new().retries(9).max(Duration::from_secs(1)).budget(Duration::from_secs(60));
    assert_eq!(calls(unavailable, layer.clone(), async |s| s.get("k").await).await, 10);
    // At most 0.1 + 0.2 + 0.4 + 0.8 s, then five times 1 s.
    assert!(begun.elapsed() <= Duration::from_millis(6500), "{:?}", begun.elapsed());
    let waiting = || unavailable().with_retry_after(Duration::from_secs(7));
    let begun = Instant::now();
    assert_eq!(calls(waiting, layer.clone(), async |s| s.get("k").await).await, 9);
    // Eight waits of 7 s fit into the budget of 60 s, the ninth does not.
    assert_eq!(begun.elapsed().as_secs(), 56);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_changed_under_the_reader_is_a_conflict_and_no_mixture() -> Result<()> {
    let memory = Memory::new();
    let below = Storage::new(memory.clone());
    below.put("k", "a".repeat(1000)).await?;
    let storage = stack(Faults::new(memory, 5).reset(1.0), RetryLayer::new());
    let body = storage.open("k", GetOptions::new()).await?.unwrap().body;
    below.put("k", "b".repeat(1000)).await?;
    let pieces: Vec<Result<Bytes>> = body.into_stream().collect().await;
    let (last, before) = pieces.split_last().unwrap();
    assert_eq!(last.as_ref().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(before.iter().flatten().all(|piece| piece.iter().all(|byte| *byte == b'a')));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn versions_that_went_away_while_they_were_listed_are_a_conflict_and_no_short_list() -> Result<()> {
    const KEPT: usize = 10;
    let mut lost = 0;
    for seed in 0..50 {
        let memory = Memory::new();
        let below = Storage::new(memory.clone());
        for i in 0..KEPT {
            below.put("k", i.to_string()).await?;
        }
        let storage = stack(Faults::new(memory, seed).reset(0.9), patient());
        let mut versions = storage.versions("k").await?;
        versions.try_next().await?.unwrap();
        for i in 0..KEPT {
            below.put("k", i.to_string()).await?;
        }
        match versions.try_collect::<Vec<_>>().await {
            Ok(rest) => assert_eq!(rest.len(), KEPT - 1, "seed {seed}"),
            Err(e) => {
                lost += 1;
                assert_eq!(e.kind(), ErrorKind::Conflict, "seed {seed}: {e:?}");
            }
        }
    }
    assert!(lost > 10, "{lost} lists lost their place");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_inside_a_transaction_is_repeated_but_the_whole_can_be() -> Result<()> {
    let memory = Memory::new();
    let faults = Faults::new(memory.clone(), 9).before(1.0).only(["put"]);
    let storage = stack(faults, RetryLayer::new());
    let tx = storage.begin().await?;
    assert_eq!(tx.put("k", "v").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(storage.backend().get_ref().planted(), 1);
    Ok(())
}
