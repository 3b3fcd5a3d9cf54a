//! Wrong settings: the error names the cause and the setting to change, and no secret. And the ways to say who asks.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures_util::TryStreamExt;
use storage_azure::{AzureFactory, Config};
use storage_config::{BackendFactory, ConnectionConfig, CredentialProvider, Secret, StorageContext};
use storage_conformance::proxy::{Fault, Proxy};
use storage_core::{Error, ErrorKind, Result, Storage, async_trait};

use crate::container::{Container, account, connection_string, endpoint, host, is_there, key, sas};

const LATER: &str = "2099-01-01T00:00:00Z";

async fn refused(config: Config) -> Error {
    let secrets = [config.account_key.clone(), config.connection_string.clone(), config.sas.clone()];
    let shown = format!("{config:?}");
    let error = storage_azure::connect(config).await.unwrap_err();
    let shown = format!("{error:?} {error} {shown}");
    for secret in secrets.into_iter().flatten() {
        let signature = secret.expose().rsplit("sig=").next().unwrap();
        assert!(!shown.contains(secret.expose()) && !shown.contains(signature), "{shown}");
    }
    error
}

#[tokio::test]
async fn wrong_containers_accounts_keys_and_endpoints() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let changed = |change: fn(&mut Config)| {
        let mut config = container.config();
        change(&mut config);
        refused(config)
    };
    let error = changed(|config| config.container = "no-such-container".into()).await;
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("`container`"), "{error:?}");
    let error = changed(|config| config.container = "a".into()).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("`container`"), "{error:?}");
    let error = changed(|config| config.account_key = Some(Secret::new("aHVudGVyMg=="))).await;
    assert!(error.kind() == ErrorKind::Unauthenticated && error.message().contains("`account_key`"), "{error:?}");
    let error = changed(|config| config.account = Some("somebodyelse".into())).await;
    assert!(error.message().contains("`account`"), "{error:?}");
    let error = changed(|config| config.account_key = Some(Secret::new("hunter2 is not base64"))).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("`account_key`"), "{error:?}");
    let error = changed(|config| config.account_key = None).await;
    assert!(error.kind() == ErrorKind::Unauthenticated && error.message().contains("`account_key`"), "{error:?}");
    let anonymous = changed(|config| {
        config.account_key = None;
        config.anonymous = true;
    });
    let error = anonymous.await;
    assert!(matches!(error.kind(), ErrorKind::Unauthenticated | ErrorKind::PermissionDenied), "{error:?}");

    let nobody = Proxy::start("127.0.0.1:1").unwrap();
    let mut config = container.config();
    config.endpoint = Some(endpoint(&nobody.address()));
    let error = refused(config).await;
    assert!(error.kind() == ErrorKind::Unavailable && !error.message().is_empty(), "{error:?}");
    let error = changed(|config| config.endpoint = Some("http://localhost:1/devstoreaccount1".into())).await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("`endpoint`"), "{error:?}");
    // An account that does not exist has no address.
    let error = changed(|config| {
        config.account = Some("no-such-account".into());
        config.endpoint = None;
    });
    let error = error.await;
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("`account`"), "{error:?}");
}

#[tokio::test]
async fn shared_access_signatures_can_do_everything_they_allow() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let with = |sas: Secret| {
        let mut config = container.config();
        config.account_key = None;
        config.sas = Some(sas);
        config
    };
    let config = with(sas(&container.name, "rcwdl", LATER));
    let storage = Storage::new(storage_azure::connect(config).await.unwrap());
    storage.put("a b/ü?", vec![1; 6 << 20]).await.unwrap();
    storage.copy("a b/ü?", "copy").await.unwrap();
    storage.delete_batch(["a b/ü?", "absent"]).await.unwrap();
    let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
    assert_eq!(keys, ["copy"]);
    storage.clear().await.unwrap();

    let error = refused(with(sas(&container.name, "rcwdl", "2020-01-01T00:00:00Z"))).await;
    assert!(error.message().contains("`sas`"), "expired: {error:?}");
    let error = refused(with(sas(&container.name, "l", LATER))).await;
    assert!(error.kind() == ErrorKind::PermissionDenied && error.message().contains("`sas`"), "{error:?}");
    let forged = sas(&container.name, "rcwdl", LATER).expose().replace("2099", "2098");
    let error = refused(with(Secret::new(forged))).await;
    assert!(error.message().contains("`sas`"), "forged: {error:?}");
    // The address of a request holds the signature, also that of one which breaks off.
    container.proxy.spoil(0, 1, Fault::Reset(0));
    assert_eq!(refused(with(sas(&container.name, "rcwdl", LATER))).await.kind(), ErrorKind::Unavailable);
    let error = refused(with(Secret::new("hunter2"))).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("`sas`"), "{error:?}");
}

/// Answers that Microsoft documents for these mistakes, which the emulator does not give.
#[tokio::test]
async fn answers_of_azure() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    for (status, code, kind, names) in [
        ("403 Forbidden", "AuthorizationPermissionMismatch", ErrorKind::PermissionDenied, "`sas`"),
        ("403 Forbidden", "KeyBasedAuthenticationNotPermitted", ErrorKind::PermissionDenied, "`sas`"),
        ("403 Forbidden", "AccountIsDisabled", ErrorKind::PermissionDenied, "`account`"),
        ("409 Conflict", "ContainerBeingDeleted", ErrorKind::Unavailable, "`container`"),
        ("409 Conflict", "PublicAccessNotPermitted", ErrorKind::PermissionDenied, "`account_key`"),
        ("503 Server Busy", "ServerBusy", ErrorKind::RateLimited, "fewer"),
        ("500 Internal Server Error", "OperationTimedOut", ErrorKind::Timeout, "again"),
    ] {
        // The detail of a failed signature holds it.
        let body = format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>m</Message>\
             <AuthenticationErrorDetail>hunter2</AuthenticationErrorDetail></Error>"
        );
        container.proxy.spoil(0, 1, Fault::answer(status, "content-type: application/xml\r\n", &body));
        let error = refused(container.config()).await;
        assert!(error.kind() == kind && error.message().contains(names), "{code}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let page = Fault::answer("200 OK", "content-type: text/html\r\n", "<!DOCTYPE html><html><body>hi");
    container.proxy.spoil(0, 1, page);
    let error = refused(container.config()).await;
    assert!(error.message().contains("`endpoint`"), "{error:?}");
}

#[derive(Debug)]
struct Keys(String);

#[async_trait]
impl CredentialProvider for Keys {
    async fn credential(&self, name: &str) -> Result<Secret> {
        match name {
            "key" => Ok(Secret::new(key())),
            "sas" => Ok(sas(&self.0, "rcwdl", LATER)),
            "away" => Err(Error::new(ErrorKind::Unavailable, "the vault is away")),
            _ => Err(Error::new(ErrorKind::Config, "there are no credentials of this name")),
        }
    }
}

#[tokio::test]
async fn the_application_provides_credentials() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let mut context = StorageContext::default();
    let connect = async |context: &StorageContext, name: &str| {
        let uri = format!("azure://{}/below?endpoint={}&credentials={name}", container.name, endpoint(&host()));
        AzureFactory.connect(&ConnectionConfig::new(uri), context).await
    };
    let none = connect(&context, "key").await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::Config, "{none:?}");
    context.credentials = Some(Arc::new(Keys(container.name.clone())));
    assert_eq!(connect(&context, "away").await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(connect(&context, "other").await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    for name in ["key", "sas"] {
        let storage = Storage::from_arc(connect(&context, name).await.unwrap());
        storage.put("k", name).await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), name);
    }
}

#[tokio::test]
async fn connection_strings_and_the_emulators_own_account() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let mut by_string = Config::new(&container.name);
    by_string.connection_string = Some(connection_string(&host()));
    let mut emulator = Config::new(&container.name);
    emulator.emulator = true;
    emulator.endpoint = Some(endpoint(&host()));
    for config in [by_string, emulator] {
        assert!(!format!("{config:?}").contains(&key()));
        let storage = Storage::new(storage_azure::connect(config).await.unwrap());
        storage.put("k", "v").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        assert!(!format!("{storage:?}").contains(&account()));
    }
}

#[test]
fn settings_that_cannot_be_meant() {
    for wrong in [
        "azure:",
        "azure://",
        "azure://Upper",
        "azure://c?container=d",
        "azure://c/p?prefix=q",
        "azure://c?account=a&account_key=aGk=&sas=sig=x",
        "azure://c?connection_string=x&account=a",
        "azure://c?emulator=true&account=a",
        "azure://c?anonymous=true&emulator=true",
        "azure://c?timeout=-1",
        "azure://c?part_size=0",
        "azure://c?containerx=c",
    ] {
        let error = Config::from_connection(&ConnectionConfig::new(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{wrong}");
    }
    let config = "azure://c/p/q?account=a&timeout=5&part_size=8388608";
    let config = Config::from_connection(&ConnectionConfig::new(config)).unwrap();
    assert_eq!((config.container.as_str(), config.store.prefix.as_str()), ("c", "p/q"));
    assert_eq!((config.store.part_size.get(), config.http.timeout.as_secs()), (8 << 20, 5));
}
