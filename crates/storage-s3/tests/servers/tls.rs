//! Encrypted connections, by a proxy with a certificate of its own before the server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use storage_core::{ErrorKind, Storage};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::bucket::{Bucket, Server};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/tls").join(name)
}

/// A port of `localhost` that speaks TLS, before this address. It ends with the test's runtime.
async fn encrypt(to: String) -> u16 {
    let key = PrivateKeyDer::from_pem_file(file("server.key.pem")).unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let config = ServerConfig::builder_with_provider(ring::default_provider().into());
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

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
