//! A ring of wrapping keys: rotation while others read and write, and no value touched by it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use storage_config::{DataKey, KeyProvider};
use storage_conformance::{Faults, Recorder};
use storage_core::{Entry, ErrorKind, Result, Storage};
use storage_layer_encrypt::{EncryptLayer, Keyring, StaticKeys};
use storage_memory::Memory;

fn kek(byte: u8) -> DataKey {
    DataKey::new([byte; 32])
}

fn old() -> StaticKeys {
    StaticKeys::new("old", &kek(1)).unwrap()
}

fn both() -> StaticKeys {
    StaticKeys::new("new", &kek(2)).unwrap().with_older("old", &kek(1)).unwrap()
}

fn new() -> StaticKeys {
    StaticKeys::new("new", &kek(2)).unwrap()
}

async fn over(values: &Storage, ring: &Storage, keys: StaticKeys) -> Result<Storage> {
    let ring = Keyring::open(ring.clone(), keys).await?;
    Ok(values.clone().layer(EncryptLayer::new(ring).encrypt_metadata(true)))
}

async fn entries(storage: &Storage) -> Result<Vec<Entry>> {
    storage.list("").await?.try_collect().await
}

#[tokio::test]
async fn rewrapping_touches_no_value_and_frees_of_the_older_key() -> Result<()> {
    let recorder = Recorder::new(Memory::new());
    let log = recorder.log();
    let (values, ring) = (Storage::new(recorder), Storage::new(Memory::new()));
    let above = over(&values, &ring, old()).await?;
    for n in 0..100 {
        above.put(format!("{n}"), format!("value {n}")).await?;
    }
    let before = entries(&values).await?;
    assert_eq!(log.take().iter().filter(|call| **call == "put").count(), 100);

    // Without the older key nothing can be done, and nothing is lost.
    let failed = Keyring::open(ring.clone(), new()).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Config);
    assert!(failed.to_string().contains("\"old\""), "{failed}");

    let keyring = Keyring::open(ring.clone(), both()).await?;
    let report = keyring.rewrap().await?;
    assert_eq!((report.rewrapped.len(), report.current.len(), report.failed.len()), (1, 0, 0));
    let report = keyring.rewrap().await?;
    assert_eq!((report.rewrapped.len(), report.current.len(), report.failed.len()), (0, 1, 0));
    assert_eq!(log.take(), Vec::<&str>::new(), "no call reached the store of the values");

    // Etags, versions and dates are what they were.
    assert_eq!(entries(&values).await?, before);
    let above = over(&values, &ring, new()).await?;
    for n in 0..100 {
        assert_eq!(above.get(format!("{n}")).await?.unwrap(), format!("value {n}"));
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_rewrapped_is_reported_and_done_the_next_time() -> Result<()> {
    let memory = Memory::new();
    let ring = Storage::new(memory.clone());
    let keyring = Keyring::open(ring.clone(), old()).await?;
    for _ in 0..9 {
        keyring.renew().await?;
    }
    ring.put("somebody else's", "not a record").await?;
    let faults = Faults::new(memory, 1).before(0.4).after(0.3).only(["get", "put"]);
    let ring_with_faults = Storage::new(faults);
    let mut rounds = 0;
    loop {
        rounds += 1;
        let Ok(keyring) = Keyring::open(ring_with_faults.clone(), both()).await else { continue };
        let report = keyring.rewrap().await?;
        assert_eq!(report.rewrapped.len() + report.current.len() + report.failed.len(), 10);
        if report.failed.is_empty() {
            break;
        }
    }
    assert!(rounds > 1, "some of it failed");
    let keyring = Keyring::open(ring, new()).await?;
    let report = keyring.rewrap().await?;
    assert_eq!((report.current.len(), report.failed.len()), (10, 0));
    Ok(())
}

#[tokio::test]
async fn changed_and_missing_records_are_clear_errors_and_nothing_else_suffers() -> Result<()> {
    let (values, ring) = (Storage::new(Memory::new()), Storage::new(Memory::new()));
    let above = over(&values, &ring, old()).await?;
    above.put("first", "1").await?;
    let id = ring.keys().await?.try_next().await?.unwrap();
    let record = ring.get(&id).await?.unwrap();
    let second = Keyring::open(ring.clone(), old()).await?.renew().await?;
    over(&values, &ring, old()).await?.put("second", "2").await?;

    for bit in 0..record.len() * 8 {
        let mut changed = record.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        ring.put(&id, changed).await?;
        let above = over(&values, &ring, both()).await?;
        let kind = above.get("first").await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Config), "bit {bit}: {kind:?}");
        assert_eq!(above.get("second").await?.unwrap(), "2");
        let report = Keyring::open(ring.clone(), both()).await?.rewrap().await?;
        assert_eq!(report.failed.len(), 1, "bit {bit}");
    }
    // One record in place of another.
    ring.put(&id, ring.get(&second).await?.unwrap()).await?;
    let error = over(&values, &ring, both()).await?.get("first").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    ring.delete(&id).await?;
    let error = over(&values, &ring, both()).await?.get("first").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(id.as_str()), "{error}");
    ring.put(&id, record).await?;
    assert_eq!(over(&values, &ring, both()).await?.get("first").await?.unwrap(), "1");
    Ok(())
}

#[tokio::test]
async fn instances_meet_each_others_keys() -> Result<()> {
    let ring = Storage::new(Memory::new());
    let opened = futures_util::future::join_all((0..8).map(|_| Keyring::open(ring.clone(), old()))).await;
    let rings: Vec<Keyring> = opened.into_iter().collect::<Result<_>>()?;
    for writer in &rings {
        let wrapped = writer.wrap(&kek(7), b"context").await?;
        for reader in &rings {
            assert_eq!(reader.unwrap(&wrapped, b"context").await?.expose(), &[7; 32]);
            assert_eq!(reader.unwrap(&wrapped, b"another").await.unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
    let renewed = rings[0].renew().await?;
    let wrapped = rings[0].wrap(&kek(7), b"").await?;
    assert_eq!(wrapped.key_id, renewed);
    rings[1].unwrap(&wrapped, b"").await?;
    assert_eq!(rings[1].wrap(&kek(7), b"").await?.key_id, renewed, "whoever meets a newer key uses it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_rotate_while_others_read_and_write() -> Result<()> {
    let (values, ring) = (Storage::new(Memory::new()), Storage::new(Memory::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let (values, ring, stop) = (values.clone(), ring.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            let (mut n, mut above) = (0_u64, over(&values, &ring, both()).await?);
            while !stop.load(Ordering::Relaxed) {
                if n % 64 == 0 {
                    // Another process, so to speak, with the keys of before or after the rotation.
                    above = over(&values, &ring, both()).await?;
                }
                let (key, value) = (format!("{writer}/{}", n % 16), format!("{writer} {n}"));
                above.put(&key, value.clone()).await?;
                assert_eq!(above.get(&key).await?.unwrap(), value);
                n += 1;
            }
            Result::Ok(n)
        }));
    }
    let begun = Instant::now();
    let mut rotations: u8 = 0;
    // Each rotation: a new key-encryption key, a new wrapping key, everything rewrapped, back again.
    while begun.elapsed() < Duration::from_secs(2) || rotations < 10 {
        let back = StaticKeys::new("old", &kek(1))?.with_older("new", &kek(2))?;
        for keys in [both(), back] {
            let keyring = Keyring::open(ring.clone(), keys).await?;
            if rotations.is_multiple_of(16) {
                keyring.renew().await?;
            }
            let report = keyring.rewrap().await?;
            assert!(report.failed.iter().all(|(_, e)| e.kind() == ErrorKind::PreconditionFailed), "{report:?}");
            tokio::task::yield_now().await;
        }
        rotations = rotations.saturating_add(1);
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for task in tasks {
        written += task.await.unwrap()?;
    }
    println!("{written} values written and read during {rotations} rotations");
    assert!(written > 100);
    let report = Keyring::open(ring.clone(), both()).await?.rewrap().await?;
    assert!(report.failed.is_empty() && !report.rewrapped.is_empty());
    let above = over(&values, &ring, new()).await?;
    for entry in entries(&above).await? {
        assert!(above.get(&entry.key).await?.is_some());
    }
    Ok(())
}

#[tokio::test]
async fn debug_and_errors_show_no_key() -> Result<()> {
    let ring = Storage::new(Memory::new());
    let keyring = Keyring::open(ring.clone(), StaticKeys::new("kek-id", &kek(0xab))?).await?;
    let shown = format!("{keyring:?} {:?}", Keyring::open(ring, new()).await);
    assert!(shown.contains("kek-id") && !shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    Ok(())
}
