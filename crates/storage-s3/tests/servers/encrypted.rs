//! Encrypted connections, by a proxy with a certificate of its own before the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_core::{ErrorKind, Storage};

use crate::{
    bucket::{Bucket, Server},
    tls::{encrypt, file},
};

#[tokio::test]
async fn certificates_are_checked_and_named() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let port = encrypt(server.host()).await;
        let mut config = bucket.config();
        config.endpoint = Some(format!("https://localhost:{port}"));
        let unknown = storage_s3::connect(config.clone()).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Config, "{unknown:?}");
        assert!(unknown.message().contains("`ca_file`"), "{unknown}");

        config.http.ca_file = Some(file("ca.pem"));
        let storage = Storage::new(storage_s3::connect(config.clone()).await.unwrap());
        storage.put("k", "v").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");

        config.endpoint = Some(format!("https://127.0.0.1:{port}"));
        let other_name = storage_s3::connect(config.clone()).await.unwrap_err();
        assert_eq!(other_name.kind(), ErrorKind::Config, "{other_name:?}");
        assert!(other_name.message().contains("`endpoint`"), "{other_name}");

        config.endpoint = Some(format!("https://{}", server.host()));
        let plain = storage_s3::connect(config.clone()).await.unwrap_err();
        assert_eq!(plain.kind(), ErrorKind::Config, "{plain:?}");
        assert!(plain.message().contains("`http://`"), "{plain}");

        for unusable in ["server.key.pem", "missing.pem"] {
            config.http.ca_file = Some(file(unusable));
            let error = storage_s3::connect(config.clone()).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.message().contains("`ca_file`"), "{error:?}");
        }
    }
}
