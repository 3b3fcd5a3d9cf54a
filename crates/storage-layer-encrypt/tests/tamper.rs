//! Whatever somebody changes below, one bit at a time or by exchanging whole parts, reading notices.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use futures_util::TryStreamExt;
use storage_config::DataKey;
use storage_core::{
    BackendInfo, Body, ByteRange, Bytes, Entry, ErrorKind, FieldValue, GetOptions, Key, Layer, ListOptions, Metadata,
    Object, PutOptions, Result, Storage, StorageBackend,
};
use storage_layer::{Transform, Transformed};
use storage_layer_encrypt::{Algorithm, EncryptLayer, StaticKeys};
use storage_memory::Memory;

const CHUNK: usize = 64 * 1024;
const HEADER: usize = 256;
const FIELD: &str = "storage.sealed";

struct Stack {
    below: Storage,
    above: Storage,
}

fn stack(algorithm: Algorithm, sealed: bool) -> Stack {
    let below = Storage::new(Memory::new());
    let keys = StaticKeys::new("k", &DataKey::new([1; 32])).unwrap();
    let layer = EncryptLayer::new(keys).algorithm(algorithm).encrypt_metadata(sealed);
    Stack { above: below.clone().layer(layer), below }
}

/// Every way to encrypt.
fn stacks() -> Vec<Stack> {
    let algorithms = [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305];
    algorithms.into_iter().flat_map(|algorithm| [false, true].map(|sealed| stack(algorithm, sealed))).collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn about(role: &str) -> Metadata {
    Metadata::new().field("role", role).tag("t").content_type("text/plain")
}

/// What lies below.
type Stored = (Bytes, Arc<Metadata>);

impl Stack {
    async fn stored(&self, key: &str) -> Stored {
        let object = self.below.open(key, GetOptions::new()).await.unwrap().unwrap();
        let metadata = object.entry.metadata.unwrap();
        (object.body.bytes(u64::MAX).await.unwrap(), metadata)
    }

    async fn place(&self, key: &str, value: impl Into<Bytes>, metadata: Arc<Metadata>) {
        self.below.put_with(key, value.into(), PutOptions::new().metadata(metadata)).await.unwrap();
    }

    async fn kind(&self, key: &str) -> Option<ErrorKind> {
        self.above.get(key).await.err().map(|e| e.kind())
    }

    async fn is_noticed(&self, key: &str, what: &str) {
        let kind = self.kind(key).await;
        // A changed key id names a key that is not there.
        assert!(matches!(kind, Some(ErrorKind::Corrupt | ErrorKind::Config)), "{what}: {kind:?} {:?}", self.above);
    }
}

#[tokio::test]
async fn every_single_bit_flip_truncation_and_extension_of_a_value() -> Result<()> {
    for s in stacks() {
        for len in [0, 1, 40] {
            s.above.put_with("a", pattern(len), PutOptions::new().metadata(about("reader"))).await?;
            let (stored, metadata) = s.stored("a").await;
            for bit in 0..stored.len() * 8 {
                let mut changed = stored.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                s.place("a", changed, metadata.clone()).await;
                s.is_noticed("a", &format!("bit {bit} of {len}")).await;
            }
            for end in 0..stored.len() {
                s.place("a", stored.slice(..end), metadata.clone()).await;
                assert_eq!(s.kind("a").await, Some(ErrorKind::Corrupt), "{end}");
            }
            for more in [1, 16, 17] {
                s.place("a", [&stored[..], &vec![0; more]].concat(), metadata.clone()).await;
                assert_eq!(s.kind("a").await, Some(ErrorKind::Corrupt), "{more}");
            }
            s.place("a", stored, metadata).await;
            assert_eq!(s.above.get("a").await?.unwrap(), pattern(len));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_single_bit_flip_and_truncation_of_sealed_metadata() -> Result<()> {
    for algorithm in [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305] {
        let s = stack(algorithm, true);
        s.above.put_with("a", "1", PutOptions::new().metadata(about("reader"))).await?;
        let (stored, metadata) = s.stored("a").await;
        let Some(FieldValue::String(text)) = metadata.fields.get(FIELD) else { panic!("{metadata:?}") };
        let blob = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
        let flips = (0..blob.len() * 8).map(|bit| {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            changed
        });
        for changed in flips.chain((0..blob.len()).map(|end| blob[..end].to_vec())) {
            let changed = Metadata::new().field(FIELD, BASE64URL_NOPAD.encode(&changed));
            s.place("a", stored.clone(), changed.into()).await;
            s.is_noticed("a", "sealed metadata").await;
            let kind = s.above.stat("a").await.unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Config), "{kind:?}");
            let listed = s.above.list_with(ListOptions::new().metadata(true)).await?.try_next().await?.unwrap();
            let damaged = listed.into_entry().unwrap().damaged.unwrap();
            assert_eq!(damaged.kind(), ErrorKind::Corrupt);
        }
        // A listing that does not ask for metadata goes on.
        assert_eq!(s.above.keys().await?.try_collect::<Vec<_>>().await?.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn metadata_of_other_values_and_made_up_metadata() -> Result<()> {
    for s in stacks() {
        let with = |role| PutOptions::new().metadata(about(role));
        s.above.put_with("a", "older", with("admin")).await?;
        let (older, older_metadata) = s.stored("a").await;
        s.above.put_with("a", "newer", with("reader")).await?;
        let (newer, newer_metadata) = s.stored("a").await;
        s.above.put_with("b", "other", with("admin")).await?;
        let (other, other_metadata) = s.stored("b").await;
        let made_up = [Metadata::new(), about("admin"), Metadata::new().field(FIELD, "AAAA"), {
            let mut more = (*newer_metadata).clone();
            more.tags.insert("more".into());
            more
        }];
        for forged in [older_metadata.clone(), other_metadata].into_iter().chain(made_up.map(Arc::new)) {
            s.place("a", newer.clone(), forged.clone()).await;
            s.is_noticed("a", &format!("{forged:?}")).await;
        }
        s.place("a", older, newer_metadata.clone()).await;
        s.is_noticed("a", "an older value").await;
        s.place("a", other.clone(), newer_metadata.clone()).await;
        s.is_noticed("a", "another value").await;
        s.place("a", newer, newer_metadata).await;
        assert_eq!(s.above.get("a").await?.unwrap(), "newer");
        assert_eq!(*s.above.stat("a").await?.unwrap().metadata.unwrap(), about("reader"));
    }
    Ok(())
}

#[tokio::test]
async fn a_value_with_its_metadata_under_another_key() -> Result<()> {
    for s in stacks() {
        for key in ["a", "b", "aa"] {
            s.above.put_with(key, key, PutOptions::new().metadata(about("reader"))).await?;
        }
        for (from, to) in [("a", "b"), ("a", "aa"), ("aa", "a"), ("a", "new")] {
            let (value, metadata) = s.stored(from).await;
            s.place(to, value, metadata).await;
            assert_eq!(s.kind(to).await, Some(ErrorKind::Corrupt), "{from} as {to}");
            s.above.put_with(to, to, PutOptions::new().metadata(about("reader"))).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn chunks_that_change_places_or_values_or_go_missing() -> Result<()> {
    for s in stacks() {
        s.above.put("a", pattern(3 * CHUNK)).await?;
        let (earlier, _) = s.stored("a").await;
        s.above.put("a", pattern(3 * CHUNK)).await?;
        let (stored, metadata) = s.stored("a").await;
        let sealed = CHUNK + 16;
        let of = |value: &Bytes, i: usize| value.slice(HEADER + i * sealed..HEADER + (i + 1) * sealed);
        let arrange = |order: &[usize]| {
            let chunks = order.iter().flat_map(|i| of(&stored, *i).to_vec());
            stored[..HEADER].iter().copied().chain(chunks).collect::<Vec<u8>>()
        };
        s.place("a", arrange(&[0, 1, 2]), metadata.clone()).await;
        assert_eq!(s.above.get("a").await?.unwrap(), pattern(3 * CHUNK));
        for order in [&[1, 0, 2][..], &[0, 1], &[0, 2], &[0, 1, 1], &[0, 1, 2, 2], &[0], &[2], &[]] {
            s.place("a", arrange(order), metadata.clone()).await;
            assert_eq!(s.kind("a").await, Some(ErrorKind::Corrupt), "{order:?}");
        }
        for i in 0..3 {
            let mut mixed = stored.to_vec();
            mixed[HEADER + i * sealed..HEADER + (i + 1) * sealed].copy_from_slice(&of(&earlier, i));
            s.place("a", mixed, metadata.clone()).await;
            assert_eq!(s.kind("a").await, Some(ErrorKind::Corrupt), "chunk {i} of another value");
        }
    }
    Ok(())
}

/// A store that says of every value that it has so many bytes.
#[derive(Debug)]
struct Says(u64);

impl Transform for Says {
    fn info(&self, inner: &BackendInfo) -> BackendInfo {
        inner.clone()
    }
    async fn encode(&self, _: &Key, body: Body, options: PutOptions) -> Result<(Body, PutOptions)> {
        Ok((body, options))
    }
    async fn decode(&self, _: &Key, stored: Object) -> Result<Object> {
        let mut entry = stored.entry;
        entry.size = self.0;
        Ok(Object::new(entry, stored.body))
    }
    async fn read_range<S: StorageBackend + ?Sized>(
        &self,
        inner: &S,
        key: &Key,
        range: ByteRange,
        options: GetOptions,
    ) -> Result<Option<Object>> {
        match inner.get(key, options.range(range)).await? {
            Some(stored) => self.decode(key, stored).await.map(Some),
            None => Ok(None),
        }
    }
    async fn entry<S: StorageBackend + ?Sized>(&self, _: &S, mut stored: Entry) -> Result<Option<Entry>> {
        stored.size = self.0;
        Ok(Some(stored))
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Says {
    type Backend = Transformed<S, Says>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Transformed::new(inner, self)
    }
}

#[tokio::test]
async fn sizes_that_are_not_those_of_the_bytes() -> Result<()> {
    let stored = |plain: usize| (HEADER + plain + plain.div_ceil(CHUNK).max(1) * 16) as u64;
    let keys = || StaticKeys::new("k", &DataKey::new([1; 32])).unwrap();
    let sizes = [0, 1, 100, 200, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 100, 3 * CHUNK];
    for real in sizes {
        let below = Storage::new(Memory::new());
        let plain = pattern(real);
        below.clone().layer(EncryptLayer::new(keys())).put("a", plain.clone()).await?;
        for said in sizes {
            let above = below.clone().layer(Says(stored(said))).layer(EncryptLayer::new(keys()));
            for start in [0, 1, 50, 150, CHUNK - 1, CHUNK, CHUNK + 50, 2 * CHUNK, 2 * CHUNK + 150] {
                for end in [start, start + 1, start + 10, start + CHUNK, start + 2 * CHUNK] {
                    let range = GetOptions::new().range(start as u64..end as u64);
                    let what = format!("{start}..{end} of {real} bytes, said to be {said}");
                    match above.get_with("a", range).await {
                        // Where it ends is the store's word, and so is that it begins where nothing is read.
                        Ok(part) => assert_eq!(part.unwrap(), plain.get(start..end.min(said)).unwrap_or(&[]), "{what}"),
                        Err(e) if start > said => assert_eq!(e.kind(), ErrorKind::RangeNotSatisfiable, "{what}"),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{what}: {e}"),
                    }
                }
            }
        }
        let above = below.layer(Says(u64::MAX)).layer(EncryptLayer::new(keys()));
        let error = above.get_with("a", GetOptions::new().range(1..2)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
    Ok(())
}
