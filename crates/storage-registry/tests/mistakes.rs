//! What looks like a mistake in a configuration and is none, and what is one and does not look like it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use storage_config::{BackendFactory, ConnectionConfig, StorageContext};
use storage_conformance::Faults;
use storage_core::{ErrorKind, Result, StorageBackend, async_trait};
use storage_memory::Memory;
use storage_registry::{Registry, StorageConfig, build};
use tokio::time::Instant;

fn toml(text: &str) -> StorageConfig {
    StorageConfig::from_toml(text).unwrap()
}

/// A store where every call fails, under a scheme that may also be the name of its host. It writes down where it should be.
#[derive(Default)]
struct Server(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl BackendFactory for Server {
    fn schemes(&self) -> &'static [&'static str] {
        &["server"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        self.0.lock().unwrap().push(config.location()?);
        Ok(Arc::new(Faults::new(Memory::new(), 1).before(1.0)))
    }
}

#[tokio::test]
async fn a_host_may_have_the_schemes_name() -> Result<()> {
    let server = Server::default();
    let seen = server.0.clone();
    let registry = Registry::empty().register(server);
    for location in ["server:5432/app", "server:5432", "other:5432/app"] {
        registry.build(&toml(&format!("backend = \"server\"\nconnection = \"{location}\""))).await?;
        assert_eq!(seen.lock().unwrap().pop().as_deref(), Some(location));
    }
    for location in ["server://host/app", "server:app", "server:65536/app"] {
        let config = toml(&format!("backend = \"server\"\nconnection = \"{location}\""));
        let message = registry.build(&config).await.expect_err(location).to_string();
        assert!(message.contains("leave the scheme out"), "{message}");
    }
    Ok(())
}

#[test]
fn a_number_that_is_not_finite_is_not_taken_for_none() {
    for number in ["inf", "-inf", "nan", "+nan"] {
        for place in [format!("retry = {number}"), format!("layers = [\n{{ name = \"cache\", max_value = {number} }}]")]
        {
            let error = StorageConfig::from_toml(&format!("backend = \"memory\"\n{place}")).expect_err(&place);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("a number must be finite, in line "), "{error}");
        }
    }
    let config = toml("backend = \"memory\"\noptions.share = 0.5");
    assert_eq!(config.options["share"], 0.5);
}

#[tokio::test(start_paused = true)]
async fn the_contexts_seed_repeats_the_waits() -> Result<()> {
    let mut waited = Vec::new();
    for seed in [7, 7, 8] {
        let mut context = StorageContext::default();
        context.seed = Some(seed);
        let registry = Registry::new().register(Server::default()).context(context);
        let storage = registry.build(&toml("backend = \"server\"\nlayers = [\"retry\"]")).await?;
        let begun = Instant::now();
        storage.get("a").await.unwrap_err();
        waited.push(begun.elapsed());
    }
    assert!(waited[0] == waited[1] && waited[0] != waited[2] && waited[0] > Duration::ZERO, "{waited:?}");
    Ok(())
}

#[tokio::test]
async fn keys_are_looked_at_before_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("never made");
    for (keys, says) in [
        ("keys = { a = \"env:STORAGE_TEST_NOT_SET\" }", "the environment variable"),
        ("keys = { a = \"file:/nowhere\", b = \"file:/nowhere\" }", "`current`"),
    ] {
        let text = format!("backend = \"fs\"\nconnection = {root:?}\nlayers = [{{ name = \"encrypt\", {keys} }}]");
        let error = build(&toml(&text)).await.expect_err(keys);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{error}");
        assert!(!root.exists(), "{keys}");
    }
}
