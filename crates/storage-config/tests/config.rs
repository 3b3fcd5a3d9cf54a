//! Configuration from URIs and options, and that nothing of it leaks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use storage_config::{ConnectionConfig, DataKey, Secret};
use storage_core::ErrorKind;

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Options {
    bucket: String,
    parts: usize,
    level: i64,
    ratio: f64,
    fast: bool,
    region: Option<String>,
    limit: Option<u64>,
    durability: Durability,
    token: Secret,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Durability {
    #[default]
    Full,
    NoSync,
}

fn refused(config: &ConnectionConfig) -> String {
    let error = config.typed::<Options>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    format!("{error} {error:?}")
}

#[test]
fn uri_and_options_give_the_same() {
    let expected = Options {
        bucket: "b ü/&=".into(),
        parts: 4,
        level: -3,
        ratio: 0.5,
        fast: true,
        region: Some("eu".into()),
        limit: Some(7),
        durability: Durability::NoSync,
        token: Secret::new("t"),
    };
    let uri =
        "x:place?bucket=b%20%C3%BC/%26%3D&parts=4&level=-3&ratio=0.5&fast&region=eu&limit=7&durability=no_sync&token=t";
    assert_eq!(ConnectionConfig::new(uri).typed::<Options>().unwrap(), expected);
    let config = ConnectionConfig::new("x:place")
        .option("bucket", "b ü/&=")
        .option("parts", 4)
        .option("level", -3)
        .option("ratio", 0.5)
        .option("fast", true)
        .option("region", "eu")
        .option("limit", 7)
        .option("durability", "no_sync")
        .option("token", "t");
    assert_eq!(config.typed::<Options>().unwrap(), expected);
    let nothing = ConnectionConfig::new("x:").option("limit", serde_json::Value::Null);
    assert_eq!(nothing.typed::<Options>().unwrap(), Options::default());
}

#[test]
fn scheme_and_location() {
    for (uri, scheme, location) in [
        ("", "memory", ""),
        ("memory:", "memory", ""),
        ("fs:./storage", "fs", "./storage"),
        ("fs:/a/b?x=1?y", "fs", "/a/b"),
        ("s3://bucket/prefix", "s3", "bucket/prefix"),
        ("fs:a%3Fb%20c", "fs", "a?b c"),
        ("a+b-c.d:x:y", "a+b-c.d", "x:y"),
    ] {
        let config = ConnectionConfig::new(uri);
        assert_eq!(config.scheme().unwrap(), scheme, "{uri}");
        assert_eq!(config.location().unwrap(), location, "{uri}");
    }
    for uri in ["storage", ":x", "./a:b", "1a:b", "a b:c", "é:x"] {
        let error = ConnectionConfig::new(uri).scheme().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{uri}");
    }
    let escapes = ConnectionConfig::new("fs:%ff?bucket=%ff");
    let error = escapes.location().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    refused(&escapes);
}

#[test]
fn an_unknown_option_lists_the_known_ones() {
    for config in [ConnectionConfig::new("x:?bukket=hunter2"), ConnectionConfig::new("x:").option("bukket", "hunter2")]
    {
        let text = refused(&config);
        for part in ["`parts`", "`durability`", "`token`", "did you mean `bucket`?"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hunter2") && !text.contains("bukket"), "{text}");
    }
}

#[test]
fn a_wrong_type_names_the_option_and_never_the_value() {
    for name in ["parts", "level", "ratio", "fast", "limit", "durability"] {
        for config in [
            ConnectionConfig::new(format!("x:?{name}=hunter2")),
            ConnectionConfig::new("x:").option(name, "hunter2"),
            ConnectionConfig::new("x:").option(name, vec!["hunter2"]),
        ] {
            let text = refused(&config);
            assert!(text.contains(&format!("`{name}`")), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
    let text = refused(&ConnectionConfig::new("x:").option("token", vec!["hunter2"]));
    assert!(text.contains("`token`") && !text.contains("hunter2"), "{text}");
    let text = refused(&ConnectionConfig::new("x:?durability=some"));
    assert!(text.contains("`full`, `no_sync`"), "{text}");
}

#[test]
fn a_secret_may_be_a_reference_and_other_options_are_as_they_are() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Options {
        name: String,
        token: Secret,
        more: Option<Secret>,
        headers: BTreeMap<String, Secret>,
        list: Vec<Secret>,
    }
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/secret");
    std::fs::write(file, "from a file\r\n").unwrap();
    let file = format!("file:{file}");
    let config = ConnectionConfig::new("x:?token=env:CARGO_PKG_NAME")
        .option("name", "env:CARGO_PKG_NAME")
        .option("more", file.as_str())
        .option("headers", json!({"a": file, "b": "plain:env:x"}))
        .option("list", json!([file, "as it is: this"]));
    let options: Options = config.typed().unwrap();
    assert_eq!(options.name, "env:CARGO_PKG_NAME");
    assert_eq!(options.token.expose(), "storage-config");
    assert_eq!(options.more.unwrap().expose(), "from a file");
    assert_eq!((options.headers["a"].expose(), options.headers["b"].expose()), ("from a file", "env:x"));
    assert_eq!((options.list[0].expose(), options.list[1].expose()), ("from a file", "as it is: this"));

    for (name, value, part) in [
        ("token", json!("env:hunter2"), "environment variable"),
        ("token", json!("file:/nowhere/hunter2"), "cannot be read"),
        ("headers", json!({"hunter2": "env:hunter2"}), "`headers`"),
        ("headers", json!({"hunter2": ["hunter2"]}), "`headers`"),
        ("list", json!(["env:hunter2"]), "`list`"),
        ("list", json!("hunter2"), "`list`"),
    ] {
        let error = ConnectionConfig::new("x:").option(name, value).typed::<Options>().unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(error.kind() == ErrorKind::Config && text.contains(name) && text.contains(part), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Only a configuration is asked where a secret is; data that says so is data.
    let data: Secret = serde_json::from_str("\"env:CARGO_PKG_NAME\"").unwrap();
    assert_eq!(data.expose(), "env:CARGO_PKG_NAME");
}

#[test]
fn user_and_password_are_put_into_the_location() {
    let with = |uri: &str, user, password: Option<&str>| {
        ConnectionConfig::new(uri).credentials(user, password.map(Secret::new).as_ref())
    };
    for (uri, user, password, expected) in [
        ("x://host/db?a=b", Some("me"), Some("p@/w"), "me:p%40%2Fw@host/db"),
        ("x:host:1/a@b", Some("me"), None, "me@host:1/a@b"),
        ("x://me@host", None, Some("pw"), "me:pw@host"),
        ("x://me:pw@host", None, None, "me:pw@host"),
        ("x:", Some("me"), None, "me@"),
    ] {
        let config = with(uri, user, password).unwrap();
        assert_eq!(config.encoded_location(), expected, "{uri}");
        assert_eq!(config.location().is_err(), expected.contains('@'), "{uri}");
    }
    for (uri, user, password) in [
        ("x://me@host", Some("you"), None),
        ("x://me:hunter2@host", None, Some("hunter2")),
        ("hunter2", Some("me"), None),
    ] {
        let error = with(uri, user, password).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let kept = with("x://host?parts=4", Some("me"), None).unwrap();
    assert_eq!(kept.typed::<Options>().unwrap().parts, 4);
}

#[test]
fn an_option_given_twice_is_refused() {
    for config in [
        ConnectionConfig::new("x:?parts=1&parts=2"),
        ConnectionConfig::new("x:?parts=1").option("parts", 1),
        ConnectionConfig::new("x:?p%61rts=1&parts=1"),
    ] {
        let text = refused(&config);
        assert!(text.contains("`parts` is given twice"), "{text}");
    }
}

#[test]
fn a_layer_takes_its_options_and_leaves_the_rest() {
    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Layer {
        depth: usize,
        fast: bool,
    }
    let mut config = ConnectionConfig::new("x:place?d%65pth=3&parts=4&fast").option("level", -3);
    assert_eq!(config.take::<Layer>().unwrap(), Layer { depth: 3, fast: true });
    assert_eq!(config.location().unwrap(), "place");
    assert_eq!(config.typed::<Options>().unwrap(), Options { parts: 4, level: -3, ..Options::default() });
    assert_eq!(config.take::<Layer>().unwrap(), Layer::default(), "what was taken is gone");

    let mut config = ConnectionConfig::new("x:?depth=hunter2&parts=4");
    let error = config.take::<Layer>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`depth`") && !error.to_string().contains("hunter2"), "{error}");
    let text = refused(&config);
    assert!(text.contains("unknown option"), "a refused option is still there: {text}");
}

#[test]
fn a_password_that_is_not_encoded_shows_up_nowhere() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Layer {
        depth: usize,
    }
    for word in [
        "hunter2?hunter2",
        "hunter2&hunter2",
        "a?hunter2&hunter2=hunter2",
        "?hunter2",
        "12?hunter2",
        "a#hunter2?hunter2/",
    ] {
        for uri in [format!("x://me:{word}@host/db"), format!("x://me:{word}"), format!("x://host/db?{word}&{word}")] {
            let mut config = ConnectionConfig::new(uri.as_str());
            let layer = config.take::<Layer>().err();
            let errors = [layer, config.typed::<Options>().err(), config.location().err()];
            let text = format!(
                "{config:?} {errors:?} {:?}",
                errors.iter().flatten().map(ToString::to_string).collect::<Vec<_>>()
            );
            assert!(!text.contains("hunter2"), "{uri}: {text}");
        }
    }
    let text = refused(&ConnectionConfig::new("x://me:a?b@host"));
    assert!(text.contains("`?` as `%3F`"), "{text}");
}

#[test]
fn a_location_as_a_whole_has_no_place_for_user_and_password() {
    for uri in [
        "fs://me:hunter2@host/a",
        "fs:me:hunter2@host",
        "fs://me:hunter2",
        "fs://me@host",
        "fs://me:hunter2/a",
        "fs://me%3Ahunter2%40host",
        "fs://:hunter2/a",
        "fs:me:/hunter2@host",
        "fs://me:/hunter2",
        "fs:me:a/hunter2@host",
    ] {
        let error = ConnectionConfig::new(uri).location().unwrap_err();
        assert!(error.kind() == ErrorKind::Config && !format!("{error:?}").contains("hunter2"), "{uri}: {error:?}");
    }
    for uri in
        ["fs:./a:b@c", "fs:///a:b@c", "fs:a@b", "fs:a:b", "fs:C:/a", "fs:C:/me@home", "fs:///C:/a", "fs://./me:b@c"]
    {
        ConnectionConfig::new(uri).location().unwrap();
    }
}

#[test]
fn a_configuration_is_read_from_json() {
    let read = |json| serde_json::from_str::<ConnectionConfig>(json);
    let config = read(r#"{"uri":"x:","options":{"parts":3}}"#).unwrap();
    assert_eq!(config.typed::<Options>().unwrap().parts, 3);
    assert!(read(r#"{"uri":"x:","option":{}}"#).is_err());
    assert!(read("{}").is_err());
}

#[test]
fn debug_shows_no_secret() {
    let config = ConnectionConfig::new("s3://user:hunter2@host/p?token=hunter2").option("key", "hunter2");
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3") && !shown.contains("key"), "what stands there may be in the wrong place: {shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("host"), "{shown}");

    let secret = Secret::new("hunter2");
    assert_eq!(format!("{secret:?}"), "Secret(…)");
    assert_eq!(secret.expose(), "hunter2");
    let key = DataKey::new([42; 32]);
    assert_eq!(format!("{key:?}"), "DataKey(…)");
    assert_eq!(key.expose(), &[42; 32]);
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Typed {
    list: Vec<String>,
    tiny: u8,
    letter: char,
    real: f32,
    short: i16,
    port: Option<std::num::NonZeroU16>,
}

#[test]
fn errors_in_options_name_the_option_and_never_the_value() {
    let wrong = ["list=hunter2", "tiny=300", "letter=hunter2", "real=hunter2", "short=hunter2", "port=99999"];
    for pair in wrong {
        let (name, value) = pair.split_once('=').unwrap();
        let error = ConnectionConfig::new(format!("x:?{pair}")).typed::<Typed>().unwrap_err();
        let shown = format!("{error:?}");
        assert!(shown.contains(&format!("`{name}`")) && !shown.contains(value), "{shown}");
    }
    let json = ConnectionConfig::new("x:").option("tiny", 300).typed::<Typed>().unwrap_err();
    assert!(json.to_string().contains("`tiny`") && !json.to_string().contains("300"), "{json}");
    let right = "x:?tiny=7&letter=a&real=0.5&short=-3&port=80";
    assert!(ConnectionConfig::new(right).typed::<Typed>().is_ok());
}
