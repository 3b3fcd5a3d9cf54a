//! Wrong settings: the error names the cause and the setting to change, and no secret.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use storage_config::{BackendFactory, ConnectionConfig, CredentialProvider, Secret, StorageContext};
use storage_conformance::proxy::Fault;
use storage_core::{Error, ErrorKind, Result, Storage, async_trait};
use storage_gcs::{Config, GcsFactory};

use crate::bucket::{ACCOUNT, Bucket, host, is_there, secret};

async fn refused(config: Config) -> Error {
    let shown = format!("{config:?}");
    let error = storage_gcs::connect(config).await.unwrap_err();
    let line = secret().lines().nth(3).unwrap().to_owned();
    for hidden in [line.as_str(), "hush"] {
        assert!(!format!("{error:?} {error} {shown}").contains(hidden), "{error:?} {shown}");
    }
    error
}

#[tokio::test]
async fn wrong_buckets_and_endpoints() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let mut config = bucket.config();
    config.bucket = "no-such-bucket".into();
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("`bucket`"), "{error:?}");

    let mut config = bucket.config();
    config.endpoint = Some("http://127.0.0.1:1".into());
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("`endpoint`"), "{error:?}");

    // Something that is no store at all.
    bucket.proxy.spoil(0, 1, Fault::answer("200 OK", "content-type: text/html\r\n", "<!DOCTYPE html><html><body>hi"));
    let error = refused(bucket.config()).await;
    assert!(error.message().contains("`endpoint`"), "{error:?}");
}

#[tokio::test]
async fn files_that_are_no_service_account() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.json");
    let with = |text: Option<&str>| {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let mut config = Config::new("bucket");
        config.endpoint = Some("http://127.0.0.1:1".into());
        config.service_account_file = Some(file.clone());
        refused(config)
    };
    let person = r#"{"type":"authorized_user","client_id":"i","client_secret":"hush","refresh_token":"hush"}"#;
    let line = secret().lines().nth(3).unwrap().to_owned();
    let damaged = ACCOUNT.replace(&line, "hush");
    for (text, names) in [
        (None, "`service_account_file`"),
        (Some(""), "`service_account_file`"),
        (Some("hush"), "`service_account_file`"),
        (Some("[\"hush\"]"), "`service_account_file`"),
        (Some("{\"type\":\"service_account\",\"private_key\":\"hush\"}"), "`service_account_file`"),
        (Some(person), "`authorized_user`"),
        (Some(&damaged), "`private_key`"),
    ] {
        let error = with(text).await;
        assert!(error.kind() == ErrorKind::Config && error.message().contains(names), "{text:?}: {error:?}");
    }
    let mut config = Config::new("bucket");
    config.service_account_key = Some(Secret::new("hush"));
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("`service_account_key`"), "{error:?}");
}

/// Answers that Google documents for these mistakes, which the emulator does not give.
#[tokio::test]
async fn answers_of_google() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    for (status, headers, code, kind, names) in [
        ("401 Unauthorized", "", "AuthenticationRequired", ErrorKind::Unauthenticated, "`service_account_file`"),
        ("400 Bad Request", "", "ExpiredToken", ErrorKind::Unauthenticated, "renew"),
        ("403 Forbidden", "", "InvalidSecurity", ErrorKind::Unauthenticated, "token"),
        ("403 Forbidden", "", "AccessDenied", ErrorKind::PermissionDenied, "`bucket`"),
        ("403 Forbidden", "", "AccountProblem", ErrorKind::PermissionDenied, "billing"),
        ("400 Bad Request", "", "UserProjectMissing", ErrorKind::Unsupported, "requester-pays"),
        ("400 Bad Request", "", "InvalidBucketName", ErrorKind::Config, "`bucket`"),
        ("429 Too Many Requests", "retry-after: 3\r\n", "SlowDown", ErrorKind::RateLimited, "fewer"),
        ("503 Service Unavailable", "", "ServiceUnavailable", ErrorKind::Unavailable, "try again"),
    ] {
        let body = format!(
            "<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message><Details>hush</Details></Error>"
        );
        bucket.proxy.spoil(0, 1, Fault::answer(status, headers, &body));
        let error = refused(bucket.config()).await;
        assert!(error.kind() == kind && error.message().contains(names), "{code}: {error:?}");
        assert_eq!(error.retry_after().is_some(), !headers.is_empty(), "{code}");
    }
    // Rights that are lost later, as they are told to HEAD, which has no body.
    let storage = bucket.open().await;
    storage.put("k", "v").await.unwrap();
    bucket.proxy.spoil(0, 1, Fault::answer("403 Forbidden", "", ""));
    assert_eq!(storage.stat("k").await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    bucket.proxy.spoil(0, 1, Fault::answer("401 Unauthorized", "", ""));
    assert_eq!(storage.put("k", "w").await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
}

#[derive(Debug)]
struct Tokens;

#[async_trait]
impl CredentialProvider for Tokens {
    async fn credential(&self, name: &str) -> Result<Secret> {
        match name {
            "mine" => Ok(Secret::new("ya29.hush\n")),
            "empty" => Ok(Secret::new(" ")),
            "away" => Err(Error::new(ErrorKind::Unavailable, "the vault is away")),
            _ => Err(Error::new(ErrorKind::Config, "there are no credentials of this name")),
        }
    }
}

#[tokio::test]
async fn the_application_provides_tokens() {
    if !is_there() {
        return;
    }
    let bucket = Bucket::new().await;
    let mut context = StorageContext::default();
    let uri = format!("gs://{}/below?endpoint=http://{}", bucket.name, host().unwrap());
    let connect = async |context: &StorageContext, name: &str| {
        let config = ConnectionConfig::new(format!("{uri}&credentials={name}"));
        GcsFactory.connect(&config, context).await
    };
    let none = connect(&context, "mine").await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Config, "{none:?}");
    context.credentials = Some(Arc::new(Tokens));
    assert_eq!(connect(&context, "away").await.unwrap_err().kind(), ErrorKind::Unavailable);
    for wrong in ["other", "empty"] {
        assert_eq!(connect(&context, wrong).await.unwrap_err().kind(), ErrorKind::Unauthenticated, "{wrong}");
    }
    let storage = Storage::from_arc(connect(&context, "mine").await.unwrap());
    storage.put("k", "v").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
}

#[test]
fn settings_that_cannot_be_meant() {
    for wrong in [
        "gs:",
        "gs://",
        "gs://buck et",
        "gs://b?bucket=c",
        "gs://b/p?prefix=q",
        "gs://b?anonymous=true&credentials=x",
        "gs://b?service_account_file=f&service_account_key=k",
        "gs://b?timeout=-1",
        "gs://b?part_size=0",
        "gs://b?bucketx=c",
    ] {
        let error = Config::from_connection(&ConnectionConfig::new(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
    let config = "gcs://b/p/q?timeout=5&part_size=8388608&service_account_file=/etc/key.json";
    let config = Config::from_connection(&ConnectionConfig::new(config)).unwrap();
    assert_eq!((config.bucket.as_str(), config.store.prefix.as_str()), ("b", "p/q"));
    assert_eq!((config.store.part_size.get(), config.http.timeout.as_secs()), (8 << 20, 5));
    assert_eq!(config.service_account_file.unwrap().to_str(), Some("/etc/key.json"));
}

#[test]
fn every_option_is_documented_with_its_default() {
    const PAGE: &str = include_str!("../../../../docs/configuration.md");
    let rows: Vec<Vec<&str>> =
        PAGE.lines().filter(|row| row.starts_with("| `gs` | ")).map(|row| row.split(" | ").collect()).collect();
    let mut documented: Vec<_> = rows.iter().map(|cells| cells[1].trim_matches('`')).collect();
    documented.sort_unstable();
    let error = Config::from_connection(&ConnectionConfig::new("gs://b?nonsense=1")).unwrap_err();
    let mut known: Vec<_> = error.message().split('`').skip(1).step_by(2).collect();
    known.sort_unstable();
    assert_eq!(known, documented, "{error}");
    let plain = Config::from_connection(&ConnectionConfig::new("gs://b")).unwrap();
    for cells in rows.iter().filter(|cells| cells[2] != "none" && cells[1] != "`bucket`") {
        let value: serde_json::Value = serde_json::from_str(cells[2].trim_matches('`')).unwrap();
        let same = ConnectionConfig::new("gs://b").option(cells[1].trim_matches('`'), value);
        assert_eq!(format!("{:?}", Config::from_connection(&same).unwrap()), format!("{plain:?}"), "{cells:?}");
    }
}
