//! What a configuration opens, and what is said about a bad one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{ffi::OsString, fs, sync::Arc};

use serde_json::json;
use storage_config::{BackendFactory, ConnectionConfig, CredentialProvider, LayerFactory, Secret, StorageContext};
use storage_core::{ErrorKind, Metadata, PutOptions, Result, StorageBackend, async_trait};
use storage_layer_encrypt::StaticKeys;
use storage_registry::{LayerConfig, Registry, StorageConfig, build};

/// 32 bytes, in both notations.
const HEX: &str = "303132333435363738396162636465666768696A6b6c6d6e6f70717273747576";
const BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3BxcnN0dXY=";

fn toml(text: &str) -> StorageConfig {
    StorageConfig::from_toml(text).unwrap()
}

/// The message, which must not have the secret of these tests in it.
fn refused(error: storage_core::Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "{text}");
    error.to_string()
}

async fn unbuildable(text: &str) -> String {
    refused(build(&toml(text)).await.expect_err(text))
}

fn unreadable(text: &str) -> String {
    refused(StorageConfig::from_toml(text).expect_err(text))
}

fn env(vars: &[(&str, &str)]) -> Result<StorageConfig> {
    StorageConfig::from_vars(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
}

#[tokio::test]
async fn toml_json_environment_and_code_say_the_same() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let (db, file) = (dir.path().join("a.db"), dir.path().join("storage.toml"));
    let text = format!(
        "backend = \"sqlite\"\nconnection = {db:?}\noptions.table = \"docs\"\nretry.retries = 5\n\
         layers = [\"trace\", {{ name = \"compress\", level = 19 }}]"
    );
    fs::write(&file, &text).unwrap();
    let json = json!({
        "backend": "sqlite",
        "connection": { "location": db },
        "options": { "table": "docs" },
        "retry": { "retries": 5 },
        "layers": [{ "name": "trace" }, "compress?level=19"],
    });
    let mut code = StorageConfig::new(format!("sqlite:{}?table=docs", db.display()));
    code.layers.extend([LayerConfig::new("trace"), LayerConfig::new("retry").option("retries", 5)]);
    code.layers.push("compress?level=19".parse()?);
    let uri = format!("sqlite:{}?table=docs", db.display());
    for config in [
        toml(&text),
        StorageConfig::from_json(&json.to_string())?,
        StorageConfig::from_file(&file)?,
        env(&[("STORAGE_CONFIG", file.to_str().unwrap())])?,
        env(&[("STORAGE_URI", &uri), ("STORAGE_LAYERS", "trace, retry?retries=5, compress?level=19")])?,
        code,
    ] {
        let storage = build(&config).await?;
        assert!(storage.info().capabilities.compression && storage.info().capabilities.transactions, "{config:?}");
        storage.put("letters/a", "1").await?;
        assert!(storage.has("letters/a").await?);
        storage.clear().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_anything_it_is_memory() -> Result<()> {
    for config in [StorageConfig::default(), toml(""), StorageConfig::from_json("{}")?, env(&[("STORAGE_URI", "")])?] {
        assert_eq!(build(&config).await?.info().id.as_ref(), "memory");
    }
    Ok(())
}

#[test]
fn variables_replace_what_the_file_says() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("storage.json");
    fs::write(&file, r#"{"backend": "fs", "options": {"root": "x"}, "layers": ["trace"], "timeout": {}}"#).unwrap();
    let file = file.to_str().unwrap();
    let config = env(&[("STORAGE_CONFIG", file), ("STORAGE_URI", "memory:"), ("STORAGE_LAYERS", "metrics")])?;
    assert_eq!((config.backend.as_str(), config.options.len()), ("memory:", 0));
    assert_eq!(config.layers[0].name(), "metrics");
    assert!(config.timeout.is_some());
    Ok(())
}

#[test]
fn a_variable_that_is_nearly_ours_is_refused() {
    for (name, meant) in
        [("STORAGE_URL", "STORAGE_URI"), ("STORAGE_LAYER", "STORAGE_LAYERS"), ("STORAGE_CONFG", "STORAGE_CONFIG")]
    {
        let message = refused(env(&[(name, "hunter2")]).unwrap_err());
        assert!(message.contains(name) && message.contains(&format!("`{meant}`")), "{message}");
    }
    for others in ["STORAGE_DIR", "STORAGE_TEST_POSTGRES", "STORAGE_SERVICE_HOST", "URL"] {
        env(&[(others, "x")]).unwrap();
    }
    env(&[("STORAGE_URL", "of somebody else"), ("STORAGE_URI", "memory:")]).unwrap();
}

#[test]
fn text_that_is_no_configuration_says_where_it_goes_wrong() {
    let message = unreadable("backend = \"memory\"\npassword = \"hunter2\n");
    assert!(message.contains("line 2"), "{message}");
    let json = |text| refused(StorageConfig::from_json(text).unwrap_err());
    assert!(json("{\n\"backend\": hunter2}").contains("line 2"), "{}", json("{\n\"backend\": hunter2}"));
    assert!(json("\"hunter2\"").contains("must be an object"));
    let message = json("{\n\"options\": {\"a\": [\"hunter2\"],\n\"a\": [\"hunter2\"]}}");
    assert!(message.contains("twice, in line 3"), "{message}");
    for file in ["hunter2", "/nowhere/storage.toml", "/nowhere/storage.yaml"] {
        assert!(StorageConfig::from_file(file).is_err());
    }
}

#[tokio::test]
async fn what_is_not_known_is_an_error_with_the_known_and_the_nearest() {
    let message = unreadable("backnd = \"hunter2\"");
    assert!(message.contains("`connection`") && message.contains("did you mean `backend`?"), "{message}");
    let message = unreadable("backend = \"fs\"\nconnection.pasword = \"hunter2\"");
    assert!(message.contains("`location`") && message.contains("did you mean `password`?"), "{message}");
    let message = unbuildable("backend = \"sqlit\"\nconnection = \"hunter2\"").await;
    assert!(message.contains("`fs`") && message.contains("did you mean `sqlite`?"), "{message}");
    let message = unbuildable("backend = \"memory\"\noptions.max_version = 3").await;
    assert!(message.contains("did you mean `max_versions`?"), "{message}");
    let message = unbuildable("layers = [\"encypt\"]").await;
    assert!(message.contains("`cache`") && message.contains("did you mean `encrypt`?"), "{message}");
    let message = unbuildable("layers = [\"cache?max_byte=hunter2\"]").await;
    assert!(message.contains("`ttl_ms`") && message.contains("did you mean `max_bytes`?"), "{message}");
    let message = unbuildable("retry.retires = 3").await;
    assert!(message.contains("retry: ") && message.contains("did you mean `retries`?"), "{message}");
    let message = unbuildable("layers = [\"something\"]").await;
    assert!(!message.contains("did you mean"), "{message}");
}

#[tokio::test]
async fn what_makes_no_sense_names_the_option_and_never_the_value() {
    for (text, part) in [
        ("backend = 5", "`backend`"),
        ("backend = [\"hunter2\"]", "`backend`"),
        ("layers = \"hunter2\"", "`layers`"),
        ("layers = [5]", "each is a name"),
        ("layers = [{ max_bytes = 5 }]", "each is a name"),
        ("layers = [\"?hunter2\"]", "has a name"),
        ("retry = true", "`retry`"),
        ("connection = 7", "connection: "),
        ("connection.user = [\"hunter2\"]", "`user`"),
    ] {
        let message = unreadable(text);
        assert!(message.contains(part), "{text}: {message}");
    }
    for (text, part) in [
        ("layers = [\"cache?max_bytes=hunter2\"]", "`max_bytes`"),
        ("layers = [\"cache?max_bytes=0\"]", "`max_bytes` must not be 0"),
        ("layers = [\"cache?ttl_ms=1&ttl_ms=2\"]", "`ttl_ms` is given twice"),
        ("layers = [\"prefix\"]", "`prefix`"),
        ("timeout.timeout_ms = -1", "`timeout_ms`"),
        ("connection = \"./hunter2\"", "`backend`"),
        ("backend = \"fs:./hunter2\"\nconnection = \"./hunter2\"", "leave the location out"),
        ("backend = \"fs\"\nconnection = \"fs:./hunter2\"", "leave the scheme out"),
        ("backend = \"./hunter2\"", "begins with a scheme"),
        ("backend = \"fs\"\nconnection = \"./a?token=hunter2\"", "`options`"),
        ("backend = \"memory:?max_versions=3\"\noptions.max_versions = 4", "given twice"),
        ("backend = \"fs\"\nconnection.password = \"hunter2\"", "takes no user and no password"),
        ("backend = \"memory\"\nconnection.user = \"hunter2\"", "takes no user and no password"),
    ] {
        let message = unbuildable(text).await;
        assert!(message.contains(part), "{text}: {message}");
    }
    assert!(!std::path::Path::new("hunter2").exists());
}

#[tokio::test]
async fn layers_in_an_order_that_makes_no_sense_are_refused_with_the_reason() {
    for (layers, first, why) in [
        (r#"["encrypt", "compress"]"#, "`compress` before `encrypt`", "cannot be compressed"),
        (r#"["encrypt", "cache"]"#, "`cache` before `encrypt`", "decrypted again"),
        (r#"["compress", "trace", "cache"]"#, "`cache` before `compress`", "decompressed again"),
        (r#"["retry", "cache"]"#, "`cache` before `retry`", "wait for one load"),
        (r#"["limit", "cache"]"#, "`cache` before `limit`", "no permit"),
        (r#"["versioned", "cache"]"#, "`cache` before `versioned`", "what a cache remembers"),
        (r#"["timeout", "retry"]"#, "`retry` before `timeout`", "own time"),
        (r#"["limit", "retry"]"#, "`retry` before `limit`", "hold no permit"),
        (r#"["retry", "timeout", "retry"]"#, "`retry` is there twice", "once"),
    ] {
        // Before anything is opened: this store could not be.
        let message = unbuildable(&format!("backend = \"sqlite:/nowhere/a.db\"\nlayers = {layers}")).await;
        assert!(message.contains(first) && message.contains(why), "{layers}: {message}");
    }
    let message = unbuildable("retry = {}\nlayers = [\"retry\"]").await;
    assert!(message.contains("`retry` is given twice"), "{message}");
    build(&toml("layers = [\"metrics\", \"retry\", \"metrics?backend=tries\", \"prefix?prefix=a\"]")).await.unwrap();
}

/// A third party's layer, which writes down where it was put and adds nothing.
#[derive(Default)]
struct Probe(Arc<std::sync::Mutex<Vec<String>>>);

#[async_trait]
impl LayerFactory for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    async fn layer(
        &self,
        config: &ConnectionConfig,
        context: &StorageContext,
        inner: Arc<dyn StorageBackend>,
    ) -> Result<Arc<dyn StorageBackend>> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Options {
            at: String,
        }
        let at = config.typed::<Options>()?.at;
        self.0.lock().unwrap().push(format!("{at} seed {:?} {}", context.seed, inner.info().id));
        Ok(inner)
    }
}

#[tokio::test]
async fn a_third_party_adds_its_layer_and_gets_options_and_context() {
    let probe = Probe::default();
    let seen = probe.0.clone();
    let mut context = StorageContext::default();
    context.seed = Some(7);
    let registry = Registry::new().register_layer(probe).context(context);
    let config = toml("layers = [\"probe?at=above\", \"cache\", { name = \"probe\", at = \"below\" }]");
    registry.build(&config).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["below seed Some(7) memory", "above seed Some(7) memory"]);
    let message = refused(registry.build(&toml("layers = [\"probe?at=a&where=hunter2\"]")).await.unwrap_err());
    assert!(message.contains("probe: ") && message.contains("`at`"), "{message}");
    assert!(registry.layers().any(|name| name == "probe"));
}

#[tokio::test]
async fn a_key_comes_from_a_file_or_the_context_and_another_does_not_read() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (name, content) in [
        ("hex", format!("{HEX}\n")),
        ("base64", format!("{BASE64}\r\n")),
        ("other", BASE64.replace('M', "N")),
        ("nonsense", "hunter2hunter2".into()),
        ("empty", "\n".into()),
    ] {
        fs::write(at(name), content).unwrap();
    }
    let config = |keys: &str| {
        let keys = keys.replace("@", &format!("file:{}/", dir.path().display()));
        toml(&format!("backend = \"fs\"\nconnection = {:?}\nlayers = [{{ name = \"encrypt\", {keys} }}]", at("store")))
    };
    build(&config("keys.a = \"@hex\"")).await?.put("letter", "dear diary").await?;
    assert!(!fs::read(dir.path().join("store/letter")).unwrap().windows(10).any(|bytes| bytes == b"dear diary"));
    for keys in [
        "keys.a = \"@base64\"",
        "current = \"b\", keys = { a = \"@hex\", b = \"@other\" }",
        "algorithm = \"chacha20-poly1305\", keys.a = \"@hex\"",
    ] {
        assert_eq!(build(&config(keys)).await?.get("letter").await?.as_deref(), Some(&b"dear diary"[..]), "{keys}");
    }
    let hidden = build(&config("encrypt_metadata = true, keys.a = \"@hex\"")).await?;
    let options = PutOptions::new().metadata(Metadata::new().tag("hunter2"));
    hidden.put_with("tagged", "x", options.clone()).await?;
    build(&config("keys.a = \"@hex\"")).await?.put_with("shown", "x", options).await?;
    let below = storage_registry::open(&format!("fs:{}", at("store"))).await?;
    for (key, seen) in [("tagged", false), ("shown", true)] {
        let metadata = below.stat(key).await?.unwrap().metadata;
        assert_eq!(format!("{metadata:?}").contains("hunter2"), seen, "{key}");
    }
    let wrong = build(&config("keys.a = \"@other\"")).await?.get("letter").await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Corrupt);
    let missing = build(&config("keys.b = \"@hex\"")).await?.get("letter").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(missing.to_string().contains("\"a\""), "{missing}");

    for (keys, part) in [
        ("level = 1", "`keys`"),
        ("current = \"a\"", "there is no key"),
        ("keys.a = \"hunter2\"", "must not stand in the configuration"),
        ("keys.a = \"plain:hunter2\"", "must not stand in the configuration"),
        ("keys.a = \"@nonsense\"", "32 bytes as base64"),
        ("keys.a = \"@empty\"", "is empty"),
        ("keys.a = \"@nowhere\"", "cannot be read"),
        ("keys.a = \"env:NOBODY_SETS_THIS\"", "the key: the environment variable"),
        ("keys = { a = \"@hex\", b = \"@other\" }", "`current`"),
        ("current = \"c\", keys.a = \"@hex\"", "none of the `keys`"),
        ("algorithm = \"rot13\", keys.a = \"@hex\"", "`aes-256-gcm`, `chacha20-poly1305`"),
    ] {
        let message = refused(build(&config(keys)).await.expect_err(keys));
        assert!(message.contains(part), "{keys}: {message}");
    }

    let mut context = StorageContext::default();
    context.keys = Some(Arc::new(StaticKeys::generate("outside")?));
    let registry = Registry::new().context(context);
    let plain = toml("layers = [\"encrypt\"]");
    assert!(registry.build(&plain).await?.info().capabilities.encryption);
    refused(registry.build(&config("keys.a = \"@hex\"")).await.unwrap_err());
    assert!(refused(build(&plain).await.unwrap_err()).contains("key provider"));
    Ok(())
}

/// Shows what a factory is given.
struct Shown(Arc<std::sync::Mutex<String>>);

#[async_trait]
impl BackendFactory for Shown {
    fn schemes(&self) -> &'static [&'static str] {
        &["shown"]
    }

    async fn connect(&self, config: &ConnectionConfig, _: &StorageContext) -> Result<Arc<dyn StorageBackend>> {
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Options {
            token: Option<Secret>,
            name: String,
        }
        let Options { token, name } = config.typed()?;
        let token = token.unwrap_or_default();
        *self.0.lock().unwrap() = format!("{} {} {name}", config.encoded_location(), token.expose());
        Ok(storage_registry::open("memory:").await?.backend().clone())
    }
}

#[derive(Debug)]
struct Vault;

#[async_trait]
impl CredentialProvider for Vault {
    async fn credential(&self, name: &str) -> Result<Secret> {
        Ok(Secret::new(format!("{name}@vault")))
    }
}

#[tokio::test]
async fn secrets_are_taken_from_where_they_are_and_nothing_else_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "p/w?@:%\n").unwrap();
    let seen = Arc::default();
    let mut context = StorageContext::default();
    context.credentials = Some(Arc::new(Vault));
    let registry = Registry::new().register(Shown(Arc::clone(&seen))).context(context);
    let file = format!("file:{}", file.display());
    for (rest, expected) in [
        (
            format!("connection = {{ location = \"host/db\", user = \"me\", password = {file:?} }}"),
            "me:p%2Fw%3F%40%3A%25@host/db  ",
        ),
        (
            format!("connection = {{ location = \"//me@host/db\", password = {file:?} }}"),
            "me:p%2Fw%3F%40%3A%25@host/db  ",
        ),
        (
            "connection = { location = \"host\", user = \"a b\", password = \"env:CARGO_PKG_NAME\" }".into(),
            "a%20b:storage%2Dregistry@host  ",
        ),
        ("connection = { location = \"host\", password = \"plain:env:X\" }".into(), ":env%3AX@host  "),
        ("connection = { location = \"host\", password = \"credential:db\" }".into(), ":db%40vault@host  "),
        ("connection = { location = \"me:old@host\", user = \"\" }".into(), "twice"),
        ("connection = { location = \"me:old@host\", password = \"new\" }".into(), "twice"),
        (format!("options = {{ token = {file:?}, name = {file:?} }}"), &format!(" p/w?@:% {file}")),
        ("options = { token = \"env:NOBODY_SETS_THIS\" }".into(), "`token`"),
    ] {
        match registry.build(&toml(&format!("backend = \"shown\"\n{rest}"))).await {
            Ok(_) => assert_eq!(*seen.lock().unwrap(), expected, "{rest}"),
            Err(e) => assert!(refused(e).contains(expected), "{rest}"),
        }
    }
}

#[test]
fn debug_shows_no_value() {
    let config = toml(
        "backend = \"sqlite://me:hunter2@host/db\"\nconnection.password = \"hunter2\"\noptions.token = \"hunter2\"\n\
         retry.retries = 7\nlayers = [{ name = \"cache\", key = \"hunter2\" }, \"trace?key=hunter2\"]",
    );
    let shown = format!("{config:?}");
    for part in ["sqlite", "cache", "trace"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("host"), "{shown}");
}
