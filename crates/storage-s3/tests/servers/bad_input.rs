//! Wrong settings: the error names the cause and the setting to change, and no secret.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use storage_config::{BackendFactory, ConnectionConfig, CredentialProvider, Secret, StorageContext};
use storage_conformance::proxy::Fault;
use storage_core::{Error, ErrorKind, Result, Storage, async_trait};
use storage_s3::{Config, Encryption, S3Factory};

use crate::bucket::{Bucket, CEPH, Server};

async fn refused(config: Config) -> Error {
    let secrets = [config.secret_access_key.clone(), config.session_token.clone()];
    let shown = format!("{config:?}");
    let error = storage_s3::connect(config).await.unwrap_err();
    for secret in secrets.into_iter().flatten() {
        assert!(!format!("{error:?} {error} {shown}").contains(secret.expose()), "{error:?} {shown}");
    }
    error
}

/// Ceph, since moto takes any credentials.
#[tokio::test]
async fn wrong_credentials_and_buckets() {
    if storage_conformance::server(CEPH.0).is_none() {
        return;
    }
    let bucket = Bucket::new(CEPH, false).await;
    let changed = |change: fn(&mut Config)| {
        let mut config = bucket.config();
        change(&mut config);
        refused(config)
    };
    let error = changed(|config| config.bucket = "no-such-bucket".into()).await;
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("`bucket`"), "{error:?}");
    let error = changed(|config| config.access_key_id = Some(Secret::new("NOBODY"))).await;
    assert!(error.kind() == ErrorKind::Unauthenticated && error.message().contains("`access_key_id`"), "{error:?}");
    let error = changed(|config| config.secret_access_key = Some(Secret::new("hunter2"))).await;
    assert!(error.kind() == ErrorKind::Unauthenticated && error.message().contains("`secret_access_key`"), "{error:?}");
    let anonymous = changed(|config| {
        (config.access_key_id, config.secret_access_key) = (None, None);
        config.anonymous = true;
    });
    assert_eq!(anonymous.await.kind(), ErrorKind::PermissionDenied);
    let error = changed(|config| {
        config.encryption = Encryption::Kms;
        config.kms_key = Some("no-such-key".into());
    });
    let error = error.await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("`kms_key`"), "{error:?}");
}

/// Answers that Amazon documents for these mistakes, which neither server gives.
#[tokio::test]
async fn answers_of_amazon() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let say = |status: &str, headers: &str, code: &str, rest: &str| {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message>{rest}</Error>");
            bucket.proxy.spoil(0, 1, Fault::answer(status, headers, &body));
        };
        let token = "hunter2-token";
        let echo = format!("<Token-0>{token}</Token-0>");
        for (status, headers, code, rest, kind, names) in [
            ("400 Bad Request", "", "ExpiredToken", &*echo, ErrorKind::Unauthenticated, "`session_token`"),
            ("400 Bad Request", "", "InvalidToken", &*echo, ErrorKind::Unauthenticated, "`session_token`"),
            (
                "400 Bad Request",
                "",
                "AuthorizationHeaderMalformed",
                "<Region>eu-west-3</Region>",
                ErrorKind::Config,
                "`eu-west-3`",
            ),
            (
                "301 Moved Permanently",
                "x-amz-bucket-region: eu-west-3\r\n",
                "PermanentRedirect",
                "",
                ErrorKind::Config,
                "`eu-west-3`",
            ),
            ("403 Forbidden", "", "RequestTimeTooSkewed", "", ErrorKind::Unauthenticated, "clock"),
            ("403 Forbidden", "", "AccessDenied", "", ErrorKind::PermissionDenied, "`bucket`"),
            ("400 Bad Request", "", "KMS.NotFoundException", "", ErrorKind::Config, "`kms_key`"),
        ] {
            say(status, headers, code, rest);
            let mut config = bucket.config();
            config.session_token = Some(Secret::new(token));
            let error = refused(config).await;
            assert!(error.kind() == kind && error.message().contains(names), "{code}: {error:?}");
        }
        let storage = bucket.open().await;
        // Expired credentials, in an answer to HEAD.
        bucket.proxy.spoil(0, 1, Fault::answer("400 Bad Request", "", ""));
        let error = storage.stat("k").await.unwrap_err();
        let named = ["`session_token`", "`region`"].iter().all(|name| error.message().contains(name));
        assert!(error.kind() == ErrorKind::Unauthenticated && named, "{error:?}");
        say("400 Bad Request", "", "EntityTooSmall", "");
        let error = storage.put("k", "v").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("`part_size`"), "{error:?}");
        // As some servers say of what is not there.
        say("404 Not Found", "", "NoSuchKey", "");
        storage.delete("k").await.unwrap();
        say("404 Not Found", "", "NoSuchBucket", "");
        assert_eq!(storage.delete("k").await.unwrap_err().kind(), ErrorKind::NotFound);
        bucket.proxy.spoil(
            0,
            1,
            Fault::answer("200 OK", "content-type: text/html\r\n", "<!DOCTYPE html><html><body>hi"),
        );
        let error = refused(bucket.config()).await;
        assert!(error.message().contains("`endpoint`"), "{error:?}");
    }
}

/// What the application knows, unless it is away.
#[derive(Debug)]
struct Keys(Server, AtomicBool);

#[async_trait]
impl CredentialProvider for Keys {
    async fn credential(&self, name: &str) -> Result<Secret> {
        let config = self.0.config("none");
        match name {
            _ if self.1.load(Ordering::Relaxed) => Err(Error::new(ErrorKind::Unavailable, "the vault is away")),
            "mine" => Ok(Secret::new(format!(
                "{} {}",
                config.access_key_id.unwrap().expose(),
                config.secret_access_key.unwrap().expose()
            ))),
            _ => Err(Error::new(ErrorKind::Config, "there are no credentials of this name")),
        }
    }
}

#[tokio::test]
async fn the_application_provides_credentials() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let mut context = StorageContext::default();
        let uri = format!("s3://{}/below?region=us-east-1&endpoint=http://{}", bucket.name, server.host());
        let connect = async |context: &StorageContext, name: &str| {
            let config = ConnectionConfig::new(format!("{uri}&credentials={name}"));
            S3Factory.connect(&config, context).await
        };
        let none = connect(&context, "mine").await.unwrap_err();
        assert_eq!(none.kind(), ErrorKind::Config, "{none:?}");
        let keys = Arc::new(Keys(server, AtomicBool::new(false)));
        context.credentials = Some(keys.clone());
        assert_eq!(connect(&context, "other").await.unwrap_err().kind(), ErrorKind::Unauthenticated);
        let storage = Storage::from_arc(connect(&context, "mine").await.unwrap());
        storage.put("k", "v").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        keys.1.store(true, Ordering::Relaxed);
        let away = [
            connect(&context, "mine").await.unwrap_err(),
            storage.get("k").await.unwrap_err(),
            storage.put("k", "w").await.unwrap_err(),
            storage.put("large", vec![1; 6 << 20]).await.unwrap_err(),
            storage.delete("k").await.unwrap_err(),
            storage.delete_batch(["k", "l"]).await.unwrap_err(),
            storage.keys().await.err().unwrap(),
        ];
        for error in away {
            assert!(error.kind() == ErrorKind::Unavailable, "{error:?}");
        }
    }
}

#[test]
fn settings_that_cannot_be_meant() {
    for wrong in [
        "s3:",
        "s3://",
        "s3://buck et",
        "s3://b?bucket=c",
        "s3://b/p?prefix=q",
        "s3://b?access_key_id=a",
        "s3://b?session_token=a",
        "s3://b?access_key_id=a&secret_access_key=b%0a",
        "s3://b?anonymous=true&profile=x",
        "s3://b?kms_key=k",
        "s3://b?encryption=rot13",
        "s3://b?region=",
        "s3://b?timeout=-1",
        "s3://b?part_size=0",
        "s3://b?bucketx=c",
    ] {
        let error = Config::from_connection(&ConnectionConfig::new(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
    let config = "s3://b/p/q?region=eu-west-1&timeout=5&part_size=8388608&encryption=aws:kms&kms_key=k";
    let config = Config::from_connection(&ConnectionConfig::new(config)).unwrap();
    assert_eq!((config.bucket.as_str(), config.store.prefix.as_str()), ("b", "p/q"));
    assert_eq!((config.store.part_size.get(), config.http.timeout.as_secs()), (8 << 20, 5));
    assert_eq!(config.encryption, Encryption::Kms);
}

#[test]
fn every_option_is_documented_with_its_default() {
    const PAGE: &str = include_str!("../../../../docs/configuration.md");
    let rows: Vec<Vec<&str>> =
        PAGE.lines().filter(|row| row.starts_with("| `s3` | ")).map(|row| row.split(" | ").collect()).collect();
    let mut documented: Vec<_> = rows.iter().map(|cells| cells[1].trim_matches('`')).collect();
    documented.sort_unstable();
    let error = Config::from_connection(&ConnectionConfig::new("s3://b?nonsense=1")).unwrap_err();
    let mut known: Vec<_> = error.message().split('`').skip(1).step_by(2).collect();
    known.sort_unstable();
    assert_eq!(known, documented, "{error}");
    let plain = Config::from_connection(&ConnectionConfig::new("s3://b")).unwrap();
    for cells in rows.iter().filter(|cells| cells[2] != "none" && cells[1] != "`bucket`") {
        let value: serde_json::Value = serde_json::from_str(cells[2].trim_matches('`')).unwrap();
        let same = ConnectionConfig::new("s3://b").option(cells[1].trim_matches('`'), value);
        assert_eq!(format!("{:?}", Config::from_connection(&same).unwrap()), format!("{plain:?}"), "{cells:?}");
    }
}
