//! Encrypted connections: to a server with a certificate of its own, from a client that trusts it and from one that does not.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::process::Command;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use storage_server::Config;
use support::start;

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let Ok(made) = openssl.output() else {
        assert!(std::env::var_os("STORAGE_TEST_REQUIRE").is_none(), "openssl is not installed");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let mut config = Config::default();
    (config.tls_cert, config.tls_key) = (Some(cert.clone()), Some(key));
    let server = start(config).await;
    let url = format!("https://localhost:{}/files/k", server.address.port());
    let client = |trusted: bool| {
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
        }
        let tls = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
    };
    let put = client(true).put(&url).body("v").send().await.unwrap();
    assert_eq!(put.status(), 200);
    assert!(client(false).get(&url).send().await.unwrap_err().is_connect());
    // In the clear nothing is answered.
    let plain = server.raw(format!("GET /files HTTP/1.1\r\nhost: {}\r\n\r\n", server.address).as_bytes()).await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    assert_eq!(server.storage.get("k").await.unwrap().unwrap(), "v");
}
