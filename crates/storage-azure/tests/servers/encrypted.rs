//! Encrypted connections, by a proxy with a certificate of its own before the emulator.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_core::{ErrorKind, Storage};

use crate::{
    container::{Container, endpoint, host, is_there},
    tls::{encrypt, file},
};

#[tokio::test]
async fn certificates_are_checked_and_named() {
    if !is_there() {
        return;
    }
    let container = Container::new().await;
    let port = encrypt(host()).await;
    let at = |host: String| Some(endpoint(&host).replacen("http:", "https:", 1));
    let mut config = container.config();
    config.endpoint = at(format!("localhost:{port}"));
    let unknown = storage_azure::connect(config.clone()).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Config, "{unknown:?}");
    assert!(unknown.message().contains("`ca_file`"), "{unknown}");

    config.http.ca_file = Some(file("ca.pem"));
    let storage = Storage::new(storage_azure::connect(config.clone()).await.unwrap());
    storage.put("k", "v").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");

    config.endpoint = at(format!("127.0.0.1:{port}"));
    let other_name = storage_azure::connect(config.clone()).await.unwrap_err();
    assert_eq!(other_name.kind(), ErrorKind::Config, "{other_name:?}");
    assert!(other_name.message().contains("`endpoint`"), "{other_name}");

    config.endpoint = at(host());
    let plain = storage_azure::connect(config.clone()).await.unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Config, "{plain:?}");
    assert!(plain.message().contains("`http://`"), "{plain}");

    for unusable in ["server.key.pem", "missing.pem"] {
        config.http.ca_file = Some(file(unusable));
        let error = storage_azure::connect(config.clone()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.message().contains("`ca_file`"), "{error:?}");
    }
}
