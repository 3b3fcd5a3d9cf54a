//! Encrypted connections to servers that take no others, and to servers that take none.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{path::PathBuf, time::Duration};

use storage_config::ConnectionConfig;
use storage_core::{Error, ErrorKind, Storage};
use storage_sql::{Config, Sql};
use support::{Engine, Place};
use tokio::time::timeout;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// The modes that ask for encryption, that also check the certificate, and that also check the name in it.
fn modes(engine: Engine) -> [&'static str; 3] {
    match engine {
        Engine::Postgres => ["require", "verify-ca", "verify-full"],
        _ => ["required", "verify_ca", "verify_identity"],
    }
}

/// What is configured for a place, with this mode.
fn config(place: &Place, mode: &str) -> Config {
    let mut config = place.config();
    config.sslmode = Some(mode.into());
    config
}

/// The same at another address, in which what is first is replaced by what is second.
fn elsewhere(place: &Place, from: &str, to: &str, mode: &str) -> Config {
    let uri = place.uri();
    assert!(uri.contains(from));
    let mut config = Config::from_connection(&ConnectionConfig::new(uri.replacen(from, to, 1))).unwrap();
    config.sslmode = Some(mode.into());
    config
}

/// Why nothing is connected: a wrong setting, said without delay and without the password.
async fn refused(config: Config) -> Error {
    let connected = timeout(Duration::from_secs(20), Sql::connect(config)).await.expect("it hangs");
    let e = connected.expect_err("it connects");
    assert_eq!(e.kind(), ErrorKind::Config, "{e:?}");
    assert!(!e.is_retryable(), "{e:?}");
    assert!(!format!("{e:?}").contains("pa55-for-tests"), "{e:?}");
    e
}

/// Whether the server says that this store's connections are encrypted.
async fn is_encrypted(place: &Place, storage: &Storage) -> bool {
    storage.put("k", "v").await.unwrap();
    assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
    // A write tells how its own connection is encrypted.
    match place.engine {
        Engine::Postgres => {
            place
                .raw(
                    "CREATE TABLE IF NOT EXISTS storage_seen (encrypted BOOLEAN); DELETE FROM storage_seen; \
                     CREATE OR REPLACE FUNCTION storage_look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                     INSERT INTO storage_seen SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid(); RETURN NULL; END $$; \
                     CREATE OR REPLACE TRIGGER storage_look AFTER UPDATE ON storage EXECUTE FUNCTION storage_look()",
                )
                .await;
            storage.put("k", "w").await.unwrap();
            let seen = place.count("SELECT count(*) FROM storage_seen").await;
            seen == 1 && place.count("SELECT count(*) FROM storage_seen WHERE encrypted").await == 1
        }
        _ => {
            place
                .raw(
                    "CREATE TABLE IF NOT EXISTS storage_seen (cipher TEXT); DELETE FROM storage_seen; \
                     CREATE OR REPLACE TRIGGER storage_look AFTER UPDATE ON storage FOR EACH ROW \
                     INSERT INTO storage_seen SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS \
                     WHERE VARIABLE_NAME = 'Ssl_cipher'",
                )
                .await;
            storage.put("k", "w").await.unwrap();
            let seen = place.count("SELECT count(*) FROM storage_seen").await;
            seen == 1 && place.count("SELECT count(*) FROM storage_seen WHERE cipher <> ''").await == 1
        }
    }
}

#[tokio::test]
async fn connections_are_encrypted_and_certificates_checked() {
    for place in Place::encrypted() {
        let [require, verify_ca, verify_name] = modes(place.engine);
        for mode in [verify_name, verify_ca] {
            let mut config = config(&place, mode);
            config.sslrootcert = Some(file("ca.pem"));
            assert!(is_encrypted(&place, &place.connect(config).await).await, "{mode}");
        }
        // Nothing is asked of the certificate.
        assert!(is_encrypted(&place, &place.connect(config(&place, require)).await).await);
        assert!(is_encrypted(&place, &place.open().await).await);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted() {
    for place in Place::encrypted() {
        let [_, verify_ca, verify_name] = modes(place.engine);
        for mode in [verify_ca, verify_name] {
            for other in [None, Some(file("client.pem"))] {
                let mut config = config(&place, mode);
                config.sslrootcert = other;
                let e = refused(config).await;
                assert!(e.message().contains("`sslrootcert`") && e.message().contains("not trusted"), "{e:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    for place in Place::encrypted() {
        let [_, verify_ca, verify_name] = modes(place.engine);
        let mut config = elsewhere(&place, "@localhost:", "@127.0.0.1:", verify_name);
        config.sslrootcert = Some(file("ca.pem"));
        let e = refused(config.clone()).await;
        assert!(e.message().contains("another name") && e.message().contains("`sslmode`"), "{e:?}");
        config.sslmode = Some(verify_ca.into());
        assert!(is_encrypted(&place, &place.connect(config).await).await);
    }
}

#[tokio::test]
async fn a_server_without_encryption() {
    for place in Place::servers() {
        for mode in modes(place.engine) {
            let e = refused(config(&place, mode)).await;
            assert!(e.message().contains("`sslmode`"), "{e:?}");
        }
    }
}

#[tokio::test]
async fn files_that_are_of_no_use() {
    for place in Place::encrypted() {
        let [require, _, verify] = modes(place.engine);
        for unusable in ["missing.pem", "client.key.pem", "."] {
            let mut config = config(&place, verify);
            config.sslrootcert = Some(file(unusable));
            let e = refused(config).await;
            assert!(e.message().contains("`sslrootcert`") && e.message().contains(unusable), "{e:?}");
        }
        let mut unchecked = config(&place, require);
        unchecked.sslrootcert = Some(file("ca.pem"));
        let e = refused(unchecked).await;
        assert!(e.message().contains("`sslrootcert`") && e.message().contains("`sslmode`"), "{e:?}");

        let with = |certificate: Option<&str>, key: Option<&str>| {
            let mut config = config(&place, require);
            (config.sslcert, config.sslkey) = (certificate.map(file), key.map(file));
            config
        };
        for (config, option) in [
            (with(Some("client.pem"), None), "`sslkey`"),
            (with(None, Some("client.key.pem")), "`sslcert`"),
            (with(Some("client.key.pem"), Some("client.key.pem")), "`sslcert`"),
            (with(Some("client.pem"), Some("ca.pem")), "`sslkey`"),
            (with(Some("client.pem"), Some("missing.pem")), "`sslkey`"),
        ] {
            let e = refused(config).await;
            assert!(e.message().contains(option), "{e:?}");
        }
    }
}

/// The server takes a certificate in place of the password, or asks for both.
#[tokio::test]
async fn clients_have_certificates_too() {
    for place in Place::encrypted() {
        let [_, _, verify] = modes(place.engine);
        let user = format!("r{}", place.table);
        let mut config = match place.engine {
            Engine::Postgres => elsewhere(&place, "/storage?", "/postgres?", verify),
            _ => {
                place.raw(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'hunter2' REQUIRE X509")).await;
                place.raw(&format!("GRANT ALL ON *.* TO '{user}'@'%'")).await;
                elsewhere(&place, "storage:pa55-for-tests@", &format!("{user}:hunter2@"), verify)
            }
        };
        config.sslrootcert = Some(file("ca.pem"));
        let without = Sql::connect(config.clone()).await.unwrap_err();
        assert_eq!(without.kind(), ErrorKind::Unauthenticated, "{without:?}");
        assert!(without.message().contains("`sslcert`"), "{without:?}");
        (config.sslcert, config.sslkey) = (Some(file("client.pem")), Some(file("client.key.pem")));
        let storage = place.connect(config).await;
        storage.put("k", "v").await.unwrap();
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "v");
        if place.engine == Engine::MariaDb {
            place.raw(&format!("DROP USER '{user}'@'%'")).await;
        }
    }
}
