//! Whatever is wrong with a configuration, nothing that is printed gives away a secret in it, in whatever notation: many URIs,
//! configurations and layers, each with a marked secret in a place where one may stand, or have been put by mistake.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says its seed")]

use std::{collections::BTreeSet, error::Error as _, ffi::OsString, sync::OnceLock, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use storage_config::{ConnectionConfig, Secret};
use storage_conformance::Secrets;
use storage_core::Error;
use storage_registry::{LayerConfig, Registry, StorageConfig};

/// A part of every secret here, so that one that is cut in pieces is found by each of them.
const MARK: &str = "mArKeR7q";
/// What a raw password may hold, which means something in a URI, a file, or an escape.
const SPECIAL: &[&str] = &[
    "?", "&", "#", "@", "/", "%", ":", "=", "+", " ", "\"", "'", "\\", "[", "]", "{", "}", "%3F", "%zz", "ü", ",", ";",
    "$", "`",
];

fn secrets() -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add(MARK.as_bytes());
    secrets.add(MARK.to_lowercase().as_bytes());
    secrets.add(MARK.to_uppercase().as_bytes());
    secrets
}

/// What a text that is a path by chance creates is removed again.
fn elsewhere() {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| tempfile::tempdir().unwrap());
    std::env::set_current_dir(place.path()).unwrap();
}

/// Collects what gives something away.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    fn text(&mut self, what: &str, text: &str) {
        if let Some(found) = secrets().found_in(text) {
            self.0.insert(format!("{what}: {found}"));
        }
    }

    fn error(&mut self, what: &str, error: &Error) {
        let mut text = format!("{error}\n{error:?}\n{error:#?}\n{}", error.message());
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!("\n{cause}\n{cause:?}");
            source = cause.source();
        }
        self.text(what, &text);
    }

    fn result<T: std::fmt::Debug>(&mut self, what: &str, result: &Result<T, Error>) {
        match result {
            Ok(value) => self.text(what, &format!("{value:?} {value:#?}")),
            Err(e) => self.error(what, e),
        }
    }
}

/// Passwords of marked pieces with special characters between and around, raw, escaped for a URI, and escaped twice.
fn passwords(random: &mut fastrand::Rng) -> Vec<String> {
    let mut passwords = Vec::new();
    for special in SPECIAL {
        let other = SPECIAL[random.usize(..SPECIAL.len())];
        passwords.push(match random.u8(..4) {
            0 => format!("{special}{MARK}{other}{MARK}"),
            1 => format!("{MARK}{special}{MARK}{other}"),
            2 => format!("12{special}{MARK}{other}{MARK}"),
            _ => format!("{MARK}{special}{other}{MARK}={MARK}"),
        });
    }
    let escaped = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
    passwords.extend([escaped(MARK), escaped(MARK).replace('%', "%25"), escaped(&format!("{MARK}?&/"))]);
    passwords
}

/// Where a secret stands in a URI. Nothing is listening at the host.
const URIS: &[&str] = &[
    "{s}://me:{p}@127.0.0.1:1/db",
    "{s}://me:{p}@127.0.0.1:1/db?{p}={p}",
    "{s}://me:{p}@127.0.0.1:1/db?timeout={p}&prefix={p}&table={p}&timeout_ms={p}",
    "{s}://me:{p}@127.0.0.1:99999/db",
    "{s}://me:{p}@[::1/db",
    "{s}://me:{p}@",
    "{s}://me:{p}",
    "{s}://:{p}@127.0.0.1:1/db",
    "{s}://me:{p}?unknown=1",
    "{s}://127.0.0.1:1/db?{p}",
    "{s}://127.0.0.1:1/db?{p}&{p}",
    "{s}:me:{p}@127.0.0.1:1",
    "me:{p}@127.0.0.1:1/db",
    "{p}",
    "{p}://x",
    "{s}+{p}:x",
];

/// Options that hold secrets, of every backend that has one.
const OPTIONS: &[&str] = &[
    "password",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "credentials",
    "account_key",
    "access_key",
    "sas",
    "sas_token",
    "connection_string",
    "service_account_key",
    "service_account",
    "bearer_token",
    "token",
    "key",
    "client_secret",
    "sslkey",
];

async fn opened(registry: &Registry, config: &ConnectionConfig) -> Result<(), Error> {
    // What is right by chance would wait for a server.
    let opening = tokio::time::timeout(Duration::from_millis(300), registry.connect(config)).await;
    opening.unwrap_or_else(|_| Err(Error::closed())).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_uri_gives_its_secret_away() {
    elsewhere();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let registry = Registry::new();
    let mut configs = Vec::new();
    for scheme in registry.schemes().chain(["unknown"]) {
        for template in URIS {
            let passwords = passwords(&mut random);
            for _ in 0..3 {
                let password = &passwords[random.usize(..passwords.len())];
                let uri = template.replace("{s}", scheme).replace("{p}", password);
                configs.push((format!("{scheme}, {template}"), ConnectionConfig::new(uri)));
            }
        }
        for option in OPTIONS {
            let password = &passwords(&mut random)[3];
            for value in [
                json!(password),
                json!(format!("env:{password}")),
                json!(format!("file:/nowhere/{password}")),
                json!([password]),
                json!({password: password}),
            ] {
                let uri = format!("{scheme}://127.0.0.1:1/db");
                configs.push((format!("{scheme}, option {option}"), ConnectionConfig::new(uri).option(*option, value)));
            }
            let uri = format!("{scheme}://127.0.0.1:1/db?{option}=env:{MARK}&{option}={MARK}");
            configs.push((format!("{scheme}, option {option} twice"), ConnectionConfig::new(uri)));
        }
    }
    let mut seen = Seen::default();
    let results = stream::iter(configs).map(|(what, config)| {
        let registry = &registry;
        async move {
            let opened = opened(registry, &config).await;
            let more = config.clone().credentials(Some("me"), Some(&Secret::new(MARK)));
            (what, config, opened, more)
        }
    });
    let results: Vec<_> = results.buffer_unordered(64).collect().await;
    for (what, config, opened, more) in &results {
        seen.result(what, opened);
        seen.result(what, more);
        seen.text(what, &format!("{config:?} {config:#?}"));
    }
    println!("{} configurations", results.len());
    assert!(seen.0.is_empty(), "seed {seed}: {:#?}", seen.0);
}

/// A configuration with the secret at one place after the other.
fn documents(p: &str) -> Vec<Value> {
    let mut all = vec![
        json!({"backend": p}),
        json!({"backend": format!("postgres://me:{p}@127.0.0.1:1/db")}),
        json!({"backend": "postgres", "connection": format!("me:{p}@127.0.0.1:1/db")}),
        json!({"backend": "memory", "connection": {"location": "", "password": p}}),
        json!({"backend": "memory", "connection": {"password": format!("env:{p}")}}),
        json!({"backend": "memory", "connection": {"password": format!("file:/nowhere/{p}")}}),
        json!({"backend": "memory", "connection": {"password": format!("credential:{p}")}}),
        json!({"backend": "memory", "connection": {p: 1}}),
        json!({"backend": "memory", "connection": {"password": [p]}}),
        json!({"backend": "memory", "options": {p: 1}}),
        json!({"backend": "memory", "options": {"max_versions": p}}),
        json!({"backend": "memory", "options": p}),
        json!({"backend": [p]}),
        json!({p: 1}),
        json!([p]),
        json!(p),
        json!({"retry": {p: 1}}),
        json!({"retry": {"retries": p}}),
        json!({"timeout": p}),
        json!({"layers": [p]}),
        json!({"layers": p}),
        json!({"layers": [format!("?{p}")]}),
        json!({"layers": [{"name": p}]}),
        json!({"layers": [{"name": [p]}]}),
        json!({"layers": [{p: 1}]}),
    ];
    for keys in [
        json!({"a": p}),
        json!({p: "a"}),
        json!({p: p}),
        json!(p),
        json!({"a": format!("env:{p}")}),
        json!({"a": format!("file:/nowhere/{p}"), "b": "env:X"}),
    ] {
        all.push(json!({"layers": [{"name": "encrypt", "keys": keys}]}));
        all.push(json!({"layers": [{"name": "encrypt", "keys": keys, "current": p}]}));
    }
    for layer in Registry::new().layers() {
        all.push(json!({"layers": [format!("{layer}?{p}")]}));
        all.push(json!({"layers": [format!("{layer}?x={p}&{p}={p}")]}));
        all.push(json!({"layers": [{"name": layer, p: p}]}));
        for option in [
            "algorithm",
            "level",
            "prefix",
            "max_bytes",
            "timeout_ms",
            "retries",
            "max_versions",
            "max",
            "backend",
            "keys",
        ] {
            all.push(json!({"layers": [{"name": layer, option: p}]}));
            all.push(json!({"layers": [{"name": layer, option: {p: [p]}}]}));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_gives_its_secret_away() {
    elsewhere();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Seen::default();
    let passwords: Vec<String> = passwords(&mut random);
    for password in
        [MARK.to_owned(), format!("{MARK}?{MARK}&{MARK}"), passwords[random.usize(..passwords.len())].clone()]
    {
        for document in documents(&password) {
            let what = document.to_string().replace(&password, "…");
            let json = document.to_string();
            let read = StorageConfig::from_json(&json);
            seen.result(&what, &read);
            let direct = serde_json::from_str::<StorageConfig>(&json);
            seen.text(
                &format!("{what}, by serde_json"),
                &direct.map_or_else(|e| format!("{e} {e:?}"), |config| format!("{config:?}")),
            );
            // Cut off in the middle, and as TOML, which it is not.
            let cut = json.char_indices().map(|(i, _)| i).nth(random.usize(..json.chars().count())).unwrap();
            seen.result(&format!("{what}, cut"), &StorageConfig::from_json(&json[..cut]));
            #[cfg(feature = "toml")]
            {
                seen.result(
                    &format!("{what}, as TOML"),
                    &StorageConfig::from_toml(&format!("backend = \"memory\"\nx = {json}")),
                );
                seen.result(
                    &format!("{what}, as broken TOML"),
                    &StorageConfig::from_toml(&format!("password = {password}\n{json}")),
                );
            }
            if let Ok(config) = read {
                let built = tokio::time::timeout(Duration::from_millis(300), Registry::new().build(&config)).await;
                if let Ok(Err(e)) = built {
                    seen.error(&what, &e);
                }
            }
        }
        for (name, value) in [
            ("STORAGE_URI", format!("postgres://me:{password}@127.0.0.1:1/db")),
            ("STORAGE_URI", password.clone()),
            ("STORAGE_LAYERS", format!("cache?{password},{password},{password}?x")),
            ("STORAGE_CONFIG", format!("postgres://me:{password}@127.0.0.1:1/db.json")),
            ("STORAGE_CONFIG", format!("/nowhere/{password}")),
            ("STORAGE_URL", password.clone()),
        ] {
            let read = StorageConfig::from_vars([(OsString::from(name), OsString::from(value))]);
            seen.result(name, &read);
        }
        let layer = format!("{password}?{password}={password}").parse::<LayerConfig>();
        seen.result("a layer", &layer);
        seen.text(
            "a layer",
            &format!("{:?}", LayerConfig::new(password.as_str()).option(password.as_str(), password.as_str())),
        );
        seen.result("a secret by reference", &Secret::resolve(&format!("env:{password}")));
        seen.result("a secret by reference", &Secret::resolve(&format!("file:/nowhere/{password}")));
    }
    assert!(seen.0.is_empty(), "seed {seed}: {:#?}", seen.0);
}
