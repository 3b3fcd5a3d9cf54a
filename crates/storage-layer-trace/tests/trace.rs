//! What a subscriber gets to see, and what it never does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use storage_conformance::{Faults, METHODS, Recorder, call};
use storage_core::{
    Body, BoxFuture, BoxStream, Bytes, Error, ErrorKind, GetOptions, Layer, Metadata, PutOptions, Query, Result,
    Storage, StorageBackend,
};
use storage_layer::{Intercept, Intercepted, Operation, Payload, Resume};
use storage_layer_trace::TraceLayer;
use storage_memory::Memory;
use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::fmt::{MakeWriter, format::FmtSpan};

/// What the subscriber of the crate `tracing-subscriber` writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// A subscriber for this thread, for everything up to this level. Each span is a line when it closes.
    fn listen(level: Level) -> (Self, DefaultGuard) {
        let written = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(written.clone())
            .with_max_level(level)
            .with_span_events(FmtSpan::CLOSE)
            .with_ansi(false)
            .finish();
        (written, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn assert_has(line: &str, parts: &[&str]) {
    assert_eq!(line.lines().count(), 1, "one span: {line}");
    for part in parts {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test]
async fn every_method_has_its_span_and_reaches_the_backend() -> Result<()> {
    let (written, _listening) = Written::listen(Level::DEBUG);
    // Memory signs no requests.
    for method in METHODS.iter().filter(|method| !matches!(**method, "health" | "presign")) {
        let memory = Memory::new();
        Storage::new(memory.clone()).put("a", "v").await?;
        let recorder = Recorder::new(memory);
        let log = recorder.log();
        let storage = Storage::new(recorder).layer(TraceLayer::new());
        call(&**storage.backend(), method).await?;
        assert_eq!(log.take()[0], *method);
        let text = written.take();
        let line = text.lines().find(|line| line.contains(&format!("operation=\"{method}\""))).unwrap();
        assert!(line.contains("DEBUG") && line.contains("outcome=\"success\""), "{line}");
        assert!(line.contains("duration_ms=") && line.contains("backend=\"memory\""), "{line}");
        assert!(!line.contains("transaction") && !line.contains("kind"), "{line}");
    }
    let storage = Storage::new(Memory::new()).layer(TraceLayer::new());
    let tx = storage.begin().await?;
    written.take();
    for method in METHODS.iter().filter(|method| !matches!(**method, "health" | "presign" | "begin" | "disconnect")) {
        call(&**tx.backend(), "put").await?;
        written.take();
        call(&**tx.backend(), method).await?;
        assert_has(&written.take(), &[&format!("operation=\"{method}\""), "transaction=true"]);
    }
    tx.commit().await?;
    assert_has(&written.take(), &["operation=\"commit\"", "transaction=true"]);
    Ok(())
}

#[tokio::test]
async fn bytes_items_and_outcomes_are_right() -> Result<()> {
    let (written, _listening) = Written::listen(Level::DEBUG);
    let memory = Memory::new();
    let storage = Storage::new(memory.clone()).layer(TraceLayer::new());
    storage.put("a", "12345").await?;
    assert_has(&written.take(), &["key=\"a\"", "bytes=5", "success"]);
    let pieces = ["123", "4567"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
    storage.put("b", Body::stream(stream::iter(pieces))).await?;
    assert_has(&written.take(), &["bytes=7", "success"]);
    storage.get("a").await?;
    assert_has(&written.take(), &["operation=\"get\"", "bytes=5", "success"]);
    storage.get("missing").await?;
    assert_has(&written.take(), &["bytes=0", "success"]);
    storage.put_batch([("c", "1"), ("d", "23")]).await?;
    assert_has(&written.take(), &["put_batch", "bytes=3"]);
    let _: Vec<_> = storage.list("").await?.try_collect().await?;
    assert_has(&written.take(), &["items=4", "success"]);

    let mut listing = storage.list("").await?;
    listing.next().await;
    assert_eq!(written.take(), "", "the span is open while the stream is");
    drop(listing);
    assert_has(&written.take(), &["items=1", "cancelled"]);
    assert_eq!(storage.copy("missing", "e").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_has(&written.take(), &["operation=\"copy\"", "error", "kind=\"not_found\""]);

    let broken = [Ok(Bytes::from_static(b"123")), Err(Error::new(ErrorKind::Other, "broken"))];
    storage.put("f", Body::stream(stream::iter(broken))).await.unwrap_err();
    assert_has(&written.take(), &["bytes=3", "error", "kind=\"other\""]);
    let hanging = storage.put("f", Body::stream(stream::pending()));
    assert!(hanging.now_or_never().is_none());
    assert_has(&written.take(), &["operation=\"put\"", "cancelled"]);

    let lost = Storage::new(Faults::new(memory.clone(), 1).after(1.0)).layer(TraceLayer::new());
    lost.put("a", "1").await.unwrap_err();
    assert_has(&written.take(), &["error", "kind=\"timeout\"", "ambiguous=true"]);
    let reset = Storage::new(Faults::new(memory, 1).reset(1.0)).layer(TraceLayer::new());
    reset.query(Query::new()).await?.try_collect::<Vec<_>>().await.unwrap_err();
    assert_has(&written.take(), &["operation=\"query\"", "error", "kind=\"unavailable\""]);
    Ok(())
}

/// Says something each time it is asked for an item.
#[derive(Debug)]
struct Talking;

impl Intercept for Talking {
    type Guard = ();

    async fn call<'a, T, F>(&'a self, _: Operation<'a>, call: F) -> (Result<T>, ())
    where
        T: Payload + Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        (call().await, ())
    }

    fn stream<T: Payload + Send + 'static>(
        _: &Arc<Self>,
        _: (),
        stream: BoxStream<'static, Result<T>>,
        _: impl Resume<T>,
    ) -> BoxStream<'static, Result<T>> {
        let talk = stream::once(async { tracing::warn!("looking for more") });
        talk.filter_map(|()| std::future::ready(None)).chain(stream).boxed()
    }
}

impl<S: StorageBackend + ?Sized> Layer<S> for Talking {
    type Backend = Intercepted<S, Self>;

    fn layer(self, inner: Arc<S>) -> Self::Backend {
        Intercepted::new(inner, self)
    }
}

#[tokio::test]
async fn what_the_store_says_belongs_to_the_span() -> Result<()> {
    let (written, _listening) = Written::listen(Level::DEBUG);
    let storage = Storage::new(Memory::new()).layer(TraceLayer::new());
    let body = stream::once(async {
        tracing::warn!("the disk is slow");
        Ok(Bytes::from_static(b"v"))
    });
    storage.put("a", Body::stream(body)).await?;
    let text = written.take();
    let said = text.lines().find(|line| line.contains("the disk is slow")).unwrap();
    assert!(said.contains("storage{operation=\"put\""), "{said}");
    let mut listing = Storage::new(Memory::new()).layer(Talking).layer(TraceLayer::new()).list("").await?;
    while listing.next().await.is_some() {}
    let text = written.take();
    let said = text.lines().find(|line| line.contains("looking for more")).unwrap();
    assert!(said.contains("storage{operation=\"list\""), "{said}");
    tracing::warn!("outside");
    assert!(!written.take().contains("storage{"));
    Ok(())
}

#[tokio::test]
async fn values_metadata_and_error_texts_are_never_seen_and_keys_only_if_wanted() -> Result<()> {
    for keys in [true, false] {
        let (written, _listening) = Written::listen(Level::TRACE);
        let storage = Storage::new(Memory::new()).layer(TraceLayer::new().keys(keys));
        let metadata = Metadata::new().content_type("text/hush").tag("hush").field("hush", "hush");
        storage.put_with("the-key", "hush", PutOptions::new().metadata(metadata)).await?;
        for method in METHODS.iter().filter(|method| **method != "disconnect") {
            let _ = call(&**storage.backend(), method).await;
        }
        storage.get_with("the-key", GetOptions::new().range(1..)).await?;
        let _: Vec<_> = storage.query(Query::new().equals("hush", "hush")).await?.try_collect().await?;
        let error = || Err(Error::new(ErrorKind::Other, "hush").with_source("hush"));
        storage.put("the-key", Body::stream(stream::once(async move { error() }))).await.unwrap_err();
        let text = written.take();
        assert!(!text.contains("hush"), "{text}");
        assert_eq!(text.contains("the-key"), keys, "{text}");
        assert_eq!(text.contains("key="), keys, "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_cannot_forge_a_line_of_the_log() -> Result<()> {
    let (written, _listening) = Written::listen(Level::DEBUG);
    let storage = Storage::new(Memory::new()).layer(TraceLayer::new());
    storage.put("a\n2026 ERROR forged \u{1b}[31m\"", "v").await?;
    let text = written.take();
    assert_has(&text, &[r"\n2026", r"\u{1b}", "\\\""]);
    assert!(!text.contains('\u{1b}'));
    Ok(())
}

#[tokio::test]
async fn nobody_listens_nothing_is_written() -> Result<()> {
    let (written, _listening) = Written::listen(Level::INFO);
    let storage = Storage::new(Memory::new()).layer(TraceLayer::new());
    storage.put("a", "v").await?;
    let entries: BTreeSet<_> = storage.list("").await?.map_ok(|entry| entry.key).try_collect().await?;
    assert_eq!((entries.len(), written.take().as_str()), (1, ""));
    Ok(())
}

#[test]
fn a_configuration_is_read_and_nonsense_refused() {
    fn json(text: &str) -> serde_json::Result<TraceLayer> {
        serde_json::from_str(text)
    }
    assert_eq!(json("{}").unwrap(), TraceLayer::new());
    assert_eq!(json(r#"{"keys": false}"#).unwrap(), TraceLayer::new().keys(false));
    assert_eq!(toml::from_str::<TraceLayer>("keys = false").unwrap(), TraceLayer::new().keys(false));
    for nonsense in [r#"{"key": false}"#, r#"{"keys": "some"}"#, r#"{"values": true}"#, "7"] {
        assert!(json(nonsense).is_err(), "{nonsense}");
    }
}
