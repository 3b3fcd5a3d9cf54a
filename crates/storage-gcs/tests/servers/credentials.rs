//! How requests say who asks, as a server sees it that refuses every write.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use storage_config::Secret;
use storage_core::ErrorKind;
use storage_gcs::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::bucket::{ACCOUNT, secret};

const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

/// What a connection sends before it is refused to write: the method, the address and the header `authorization` of each request.
async fn asked(change: impl FnOnce(&mut Config)) -> Vec<(String, String, Option<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new("bucket");
    config.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    change(&mut config);
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut piece = [0; 1024];
                let n = connection.read(&mut piece).await.unwrap();
                assert!(n > 0, "a whole head");
                head.extend_from_slice(&piece[..n]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let get = head.starts_with("GET ");
            seen.lock().unwrap().push(head);
            let (status, body) = if get { ("200 OK", EMPTY) } else { ("403 Forbidden", "") };
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // Whoever has sent the start of a body may not read the answer to its end.
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    let error = storage_gcs::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    server.abort();
    let heads = heads.lock().unwrap();
    let who = |head: &String| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        line.map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let word = |head: &String, n| head.split(' ').nth(n).unwrap().to_owned();
    heads.iter().map(|head| (word(head, 0), word(head, 1), who(head))).collect()
}

#[tokio::test]
async fn nobody_says_nothing() {
    let requests = asked(|config| config.anonymous = true).await;
    for method in ["GET", "PUT", "DELETE"] {
        assert!(requests.iter().any(|(asked, ..)| asked == method), "{method}: {requests:?}");
    }
    assert!(requests.iter().all(|(.., who)| who.is_none()), "{requests:?}");
}

/// A tenant may have the right to list no more than that.
#[tokio::test]
async fn nothing_is_listed_but_what_is_below_the_prefix() {
    let requests = asked(|config| {
        config.anonymous = true;
        config.store.prefix = "tenant/".into();
    });
    let listings: Vec<_> = requests.await.into_iter().filter(|(_, address, _)| address.contains("list-type")).collect();
    assert!(!listings.is_empty() && listings.iter().all(|(_, address, _)| address.contains("prefix=tenant%2F")));
}

/// A token that the account has signed by itself (RFC 7515, Google's AIP-4111).
#[tokio::test]
async fn a_service_account_signs() {
    let requests = asked(|config| config.service_account_key = Some(Secret::new(ACCOUNT))).await;
    assert!(requests.len() > 2, "{requests:?}");
    let pem: String = secret().lines().filter(|line| !line.starts_with("---")).collect();
    let key = RsaKeyPair::from_pkcs8(&BASE64.decode(pem.as_bytes()).unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    for (method, _, who) in requests {
        let token = who.unwrap();
        let token = token.strip_prefix("Bearer ").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        public.verify(signed.as_bytes(), &signature).unwrap();
        let part = |n: usize| BASE64URL_NOPAD.decode(signed.split('.').nth(n).unwrap().as_bytes()).unwrap();
        let (head, claims) = (part(0), part(1));
        let head: serde_json::Value = serde_json::from_slice(&head).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&head["alg"], &head["kid"]), (&"RS256".into(), &"0123456789abcdef0123456789abcdef01234567".into()));
        assert_eq!(claims["iss"], "tests@none.iam.gserviceaccount.com", "{method}");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    }
}
