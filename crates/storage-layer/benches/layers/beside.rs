//! Layers beside the library that does their work: encryption beside ring, the cache beside moka. In turns, in one run.
#![allow(clippy::print_stdout, reason = "a benchmark says what it saw")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use storage_core::{Bytes, Error, ErrorKind, Key, Result, Storage};
use storage_layer_cache::CacheLayer;
use storage_layer_encrypt::{Algorithm, EncryptLayer, StaticKeys};
use storage_memory::Memory;

const VALUE: usize = 1 << 20;
const CHUNK: usize = 1 << 16;
const TAG: usize = 16;

pub(crate) fn run() -> Result<()> {
    println!("\nencryption of 1 MiB in chunks of 64 KiB beside ring: MiB/s, and what part of ring's the layer reaches");
    println!("(ring in one buffer, which no store could keep, and in a new buffer each time, as the layer must)");
    println!("{:32} {:>13} {:>13} {:>13} {:>9} {:>9}", "", "ring, one", "ring, new", "layer", "of one", "of new");
    for (name, algorithm, raw) in [
        ("AES-256-GCM", Algorithm::Aes256Gcm, &aead::AES_256_GCM),
        ("ChaCha20-Poly1305", Algorithm::ChaCha20Poly1305, &aead::CHACHA20_POLY1305),
    ] {
        encrypt(name, algorithm, raw)?;
    }
    println!("\na value of 4 KiB that is kept beside moka: ns for a get");
    cache()
}

fn encrypt(name: &str, algorithm: Algorithm, raw: &'static aead::Algorithm) -> Result<()> {
    let plain = Bytes::from((0..VALUE).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<u8>>());
    let key = UnboundKey::new(raw, &[7; 32]).map_err(|_| failed("ring takes no key"))?;
    let key = LessSafeKey::new(key);
    let layer = EncryptLayer::new(StaticKeys::generate("benchmark")?).algorithm(algorithm);
    let storage = Storage::new(Memory::new()).layer(layer);
    let storage_key = Key::parse("value")?;

    let mut place = plain.to_vec();
    let mut in_place = || {
        let chunks = (0..).zip(place.chunks_mut(CHUNK));
        let done = chunks.map(|(i, chunk)| key.seal_in_place_separate_tag(nonce(i), Aad::empty(), chunk).is_ok());
        done.fold(true, |all, one| all & one)
    };
    let copied = || {
        let mut sealed = Vec::with_capacity(VALUE + VALUE / CHUNK * TAG);
        let mut all = true;
        for (i, chunk) in (0..).zip(plain.chunks(CHUNK)) {
            let at = sealed.len();
            sealed.extend_from_slice(chunk);
            match key.seal_in_place_separate_tag(nonce(i), Aad::empty(), &mut sealed[at..]) {
                Ok(tag) => sealed.extend_from_slice(tag.as_ref()),
                Err(_) => all = false,
            }
        }
        black_box(sealed);
        all
    };
    let put = || matches!(storage.put(&storage_key, plain.clone()).now_or_never(), Some(Ok(_)));
    report(&format!("{name}, seal and put"), &mut [&mut in_place, &mut { copied }, &mut { put }])?;

    let mut sealed = Vec::new();
    for (i, chunk) in (0..).zip(plain.chunks(CHUNK)) {
        let mut one = chunk.to_vec();
        key.seal_in_place_append_tag(nonce(i), Aad::empty(), &mut one).map_err(|_| failed("ring does not seal"))?;
        sealed.extend(one);
    }
    // Opening in place uses up what is opened, so each chunk is copied into the one buffer first.
    let mut scratch = vec![0; CHUNK + TAG];
    let in_place = || {
        let mut all = true;
        for (i, chunk) in (0..).zip(sealed.chunks(CHUNK + TAG)) {
            scratch[..chunk.len()].copy_from_slice(chunk);
            all &= key.open_in_place(nonce(i), Aad::empty(), &mut scratch[..chunk.len()]).is_ok();
        }
        all
    };
    let copied = || {
        let (mut opened, mut all) = (Vec::with_capacity(sealed.len()), true);
        for (i, chunk) in (0..).zip(sealed.chunks(CHUNK + TAG)) {
            let at = opened.len();
            opened.extend_from_slice(chunk);
            all &= key.open_in_place(nonce(i), Aad::empty(), &mut opened[at..]).is_ok();
            opened.truncate(opened.len() - TAG);
        }
        black_box(opened);
        all
    };
    let get = || matches!(storage.get(&storage_key).now_or_never(), Some(Ok(Some(value))) if value.len() == VALUE);
    report(&format!("{name}, get and open"), &mut [&mut { in_place }, &mut { copied }, &mut { get }])
}

fn cache() -> Result<()> {
    const TIMES: u32 = 1000;
    let key = Key::parse("benchmark/value")?;
    let value = Bytes::from(vec![7; 4096]);
    let raw = moka::sync::Cache::<Key, Bytes>::new(1000);
    raw.insert(key.clone(), value.clone());
    let storage = Storage::typed(Memory::new()).layer(CacheLayer::new());
    let kept = storage.put(&key, value).now_or_never();
    kept.unwrap_or_else(|| Err(failed("the value is not stored at once")))?;
    let mut moka = || (0..TIMES).all(|_| black_box(raw.get(&key)).is_some());
    let mut layer = || (0..TIMES).all(|_| matches!(black_box(storage.get(&key).now_or_never()), Some(Ok(Some(_)))));
    let [moka, layer] = medians(&mut [&mut moka, &mut layer])?[..] else { return Err(failed("two were measured")) };
    let misses = storage.backend().stats().misses;
    println!("{:32} {:>13} {:>13}", "", "moka", "layer");
    println!(
        "{:32} {:>13} {:>13}   ({misses} misses)",
        "cache hit",
        (moka / TIMES).as_nanos(),
        (layer / TIMES).as_nanos()
    );
    Ok(())
}

fn nonce(index: u8) -> Nonce {
    Nonce::assume_unique_for_key([index; 12])
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Other, what)
}

fn report(name: &str, of: &mut [&mut dyn FnMut() -> bool]) -> Result<()> {
    let seconds: Vec<f64> = medians(of)?.iter().map(Duration::as_secs_f64).collect();
    let [in_place, copied, layer] = seconds[..] else { return Err(failed("three were measured")) };
    let (speed, part) = (|seconds: f64| 1.0 / seconds, |raw: f64| raw / layer);
    println!(
        "{name:32} {:13.0} {:13.0} {:13.0} {:9.2} {:9.2}",
        speed(in_place),
        speed(copied),
        speed(layer),
        part(in_place),
        part(copied)
    );
    Ok(())
}

/// The median time of each, taken in turns so that what else happens on the machine meets all alike.
fn medians(of: &mut [&mut dyn FnMut() -> bool]) -> Result<Vec<Duration>> {
    const ROUNDS: usize = 301;
    let mut times = vec![Vec::with_capacity(ROUNDS); of.len()];
    for round in 0..ROUNDS + 20 {
        for (one, times) in of.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            let done = one();
            let elapsed = begun.elapsed();
            if !done {
                return Err(failed("what was measured failed"));
            }
            // The first rounds warm caches and the allocator.
            if round >= 20 {
                times.push(elapsed);
            }
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    Ok(times.into_iter().map(median).collect())
}
