//! `docs/configuration.md` says what the code does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Debug};

use serde::de::DeserializeOwned;
use storage_config::ConnectionConfig;
use storage_core::ErrorKind;
use storage_registry::{Registry, StorageConfig};

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// What stands between the backticks of the first row, `default` of the table of all options: options to defaults.
fn options_of(owner: &str) -> BTreeMap<&'static str, &'static str> {
    let rows = PAGE.lines().skip_while(|line| *line != "## All options and their defaults");
    let cells = rows.filter_map(|row| row.strip_prefix("| ")).map(|row| row.split(" | ").collect::<Vec<_>>());
    let ours = cells.filter(|cells| cells[0].split(", ").any(|name| name == owner));
    ours.map(|cells| (cells[1].trim_matches('`'), cells[2])).collect()
}

/// The options that a type knows, from its error about one that nobody knows.
fn known(message: &str) -> Vec<String> {
    let (_, expected) = message.split_once("known are ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Exactly the options that are marked as secrets are read as references.
fn only_secrets_are_references<T: DeserializeOwned + Debug>(owner: &str, options: &[String]) {
    for option in options {
        let row = PAGE.lines().find(|row| row.contains(owner) && row.contains(&format!("| `{option}` |")));
        let reference = ConnectionConfig::new("x:").option(option, "env:STORAGE_NOT_SET_ANYWHERE");
        let read = reference.typed::<T>().is_err_and(|e| e.to_string().contains("the environment variable"));
        assert_eq!(row.unwrap().contains("*secret*"), read, "{owner} {option}");
    }
}

fn same<T: DeserializeOwned + PartialEq + Debug>(owner: &str) {
    let documented = options_of(owner);
    let empty = ConnectionConfig::new("x:");
    let error = empty.clone().option("?", 1).typed::<T>().unwrap_err().to_string();
    let mut names = known(&error);
    names.sort();
    assert_eq!(names, documented.keys().map(ToString::to_string).collect::<Vec<_>>(), "{owner}");
    only_secrets_are_references::<T>(owner, &names);
    let defaults: T = empty.typed().unwrap();
    for (option, default) in documented {
        let value = match default {
            "none" => serde_json::Value::Null,
            code => serde_json::from_str(code.trim_matches('`')).unwrap(),
        };
        assert_eq!(empty.clone().option(option, value).typed::<T>().unwrap(), defaults, "{owner} {option}");
    }
}

#[test]
fn the_table_of_options_is_complete_and_its_defaults_are_those_of_the_code() {
    same::<storage_memory::Config>("`memory`");
    same::<storage_fs::Config>("`fs`");
    for database in ["`sqlite`", "`postgres`", "`mariadb`"] {
        same::<storage_sql::Config>(database);
    }
    same::<storage_mongodb::Config>("`mongodb`");
    same::<storage_rest::Config>("`rest`");
    same::<storage_ipfs::Config>("`ipfs`");
    same::<storage_multi::Config>("`multi`");
    for store in ["`object-store+file`", "`object-store+memory`"] {
        same::<storage_object_store::Config>(store);
    }
    same::<storage_layer_trace::TraceLayer>("layer `trace`");
    same::<storage_layer_metrics::MetricsLayer>("layer `metrics`");
    same::<storage_layer_cache::CacheLayer>("layer `cache`");
    same::<storage_layer_retry::RetryLayer>("layer `retry`");
    same::<storage_layer_timeout::TimeoutLayer>("layer `timeout`");
    same::<storage_layer_limit::LimitLayer>("layer `limit`");
    same::<storage_layer_compress::CompressLayer>("layer `compress`");
    same::<storage_layer_versioned::VersionedLayer>("layer `versioned`");
    let algorithm = options_of("layer `encrypt`")["algorithm"].trim_matches('`');
    let default = storage_layer_encrypt::Algorithm::default();
    assert_eq!(serde_json::from_str::<storage_layer_encrypt::Algorithm>(algorithm).unwrap(), default);
}

/// Clouds have options of their own, of connections, and of every object store.
#[test]
fn the_options_of_clouds_are_complete() {
    fn names<T: DeserializeOwned + Debug>() -> Vec<String> {
        known(&ConnectionConfig::new("x:").option("?", 1).typed::<T>().unwrap_err().to_string())
    }
    let shared = [names::<storage_object_store::Config>(), names::<storage_object_store::http::HttpConfig>()].concat();
    let azure = ("`azure`", names::<storage_azure::Config>());
    let google = ("`gs`", names::<storage_gcs::Config>());
    let amazon = ("`s3`", names::<storage_s3::Config>());
    only_secrets_are_references::<storage_azure::Config>(azure.0, &azure.1);
    only_secrets_are_references::<storage_gcs::Config>(google.0, &google.1);
    only_secrets_are_references::<storage_s3::Config>(amazon.0, &amazon.1);
    for (owner, own) in [azure, google, amazon] {
        only_secrets_are_references::<storage_object_store::Config>(owner, &names::<storage_object_store::Config>());
        only_secrets_are_references::<storage_object_store::http::HttpConfig>(
            owner,
            &names::<storage_object_store::http::HttpConfig>(),
        );
        let mut all = [own, shared.clone()].concat();
        all.sort();
        assert_eq!(all, options_of(owner).into_keys().collect::<Vec<_>>(), "{owner}");
    }
}

/// Also those whose options have no type of their own to ask.
#[tokio::test]
async fn every_layer_is_documented_with_all_its_options() {
    for layer in Registry::new().layers() {
        let mut config = StorageConfig::default();
        config.layers.push(format!("{layer}?nonsense").parse().unwrap());
        let message = storage_registry::build(&config).await.unwrap_err().to_string();
        let mut names = known(&message);
        names.sort();
        let documented: Vec<_> = options_of(&format!("layer `{layer}`")).into_keys().collect();
        assert_eq!(names, documented, "{layer}");
    }
}

#[test]
fn the_example_is_read() {
    let (_, rest) = PAGE.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = StorageConfig::from_toml(example).unwrap();
    let layers: Vec<_> = config.layers.iter().map(|layer| layer.name()).collect();
    assert_eq!(layers, ["trace", "metrics", "cache", "limit", "compress", "encrypt"]);
    assert!(config.retry.is_some() && config.timeout.is_some() && config.options.len() == 2);
}

/// Its layers and their order, over a store that is here.
#[tokio::test]
async fn the_stack_for_production_is_accepted() {
    let page = include_str!("../../../docs/operations.md");
    let (example, _) = page.split_once("```toml\n").unwrap().1.split_once("```").unwrap();
    let read = |text: &str| {
        let mut config = StorageConfig::from_toml(text).unwrap();
        for name in config.options.keys() {
            assert!(options_of("`postgres`").contains_key(name.as_str()), "{name}");
        }
        (config.backend, config.connection, config.options) = ("memory".into(), Default::default(), Default::default());
        config
    };
    storage_registry::build(&read(example)).await.unwrap();
    let disordered = example.replace("\"metrics\",", "\"limit\",").replace("\"limit?concurrency=32", "\"metrics");
    let refused = storage_registry::build(&read(&disordered)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
}

/// Each row of the rules of the order is what the code says, and there is none more.
#[tokio::test]
async fn the_rules_of_the_order_are_those_of_the_code() {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| must stand above")).skip(2);
    let rules: BTreeMap<(String, String), &str> = rows
        .map_while(|row| row.strip_prefix("| "))
        .map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>())
        .map(|cells| ((cells[0].trim_matches('`').into(), cells[1].trim_matches('`').into()), cells[2]))
        .collect();
    let registry = Registry::new();
    for above in registry.layers() {
        for below in registry.layers().filter(|below| *below != above) {
            let mut config = StorageConfig::new("sqlite:/nowhere/a.db");
            config.layers = vec![below.parse().unwrap(), above.parse().unwrap()];
            let message = registry.build(&config).await.unwrap_err().to_string();
            match rules.get(&(above.to_owned(), below.to_owned())) {
                Some(why) => assert!(message.ends_with(&format!("because {why}")), "{above} {below}: {message}"),
                None => assert!(!message.contains("because"), "{above} {below}: {message}"),
            }
        }
    }
    assert!(rules.len() > 5);
}
