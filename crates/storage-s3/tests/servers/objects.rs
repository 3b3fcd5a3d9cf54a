//! Objects as S3 has them: those of others, versions, encryption, and addresses for those without credentials.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::Method;
use storage_core::{
    Body, Bytes, DeleteOptions, ErrorKind, GetOptions, ListOptions, Metadata, PresignOptions, PresignedRequest,
    PutOptions, Result,
};
use storage_object_store::http::{Connector, HttpConfig, body, send};
use tokio::time::sleep;

use crate::bucket::{Bucket, CEPH, MOTO, Server};

#[tokio::test]
async fn names_of_others_break_no_listing() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        for name in ["plain", "dir/plain", "a//b", "/a", "dir/", "ends.", "a%20b", "%20lead", "a%2Bb"] {
            server.request(Method::PUT, &format!("/{}/{name}", bucket.name), "theirs").await.unwrap();
        }
        storage.put("ours", "v").await.unwrap();
        let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
        assert_eq!(keys, [" lead", "a b", "a+b", "dir/plain", "ours", "plain"], "{server:?}");
        for key in &keys {
            assert!(storage.get(key.as_str()).await.unwrap().is_some(), "{key:?}");
        }
        let level = storage.list_with(ListOptions::new().delimited(true)).await.unwrap();
        let level: Vec<_> = level.map_ok(|item| item.position().to_owned()).try_collect().await.unwrap();
        // What is below `a/` cannot be shown.
        assert_eq!(level, [" lead", "a b", "a+b", "a/", "dir/", "ours", "plain"], "{server:?}");
        assert_eq!(storage.stat("plain").await.unwrap().unwrap().metadata.unwrap(), Metadata::new().into());
    }
}

/// Answers to uploads and batches repeat the keys.
#[tokio::test]
async fn a_key_may_be_called_like_an_error() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let keys = ["SlowDown", "logs/InternalError.txt", "a & <InternalError>"];
        let left = async || storage.keys().await.unwrap().try_collect::<Vec<_>>().await.unwrap().len();
        for key in keys {
            storage.put(key, vec![1; 6 << 20]).await.unwrap();
            assert_eq!(storage.get(key).await.unwrap().unwrap(), vec![1; 6 << 20], "{server:?} {key}");
        }
        storage.delete_batch(keys).await.unwrap();
        assert_eq!(left().await, 0, "{server:?}");
        for key in keys {
            storage.put(key, "v").await.unwrap();
        }
        storage.clear().await.unwrap();
        assert_eq!(left().await, 0, "{server:?}");
    }
}

/// As the policy of a bucket that many share gives it to each.
const TENANT: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::*",
     "Condition": {"StringLike": {"s3:prefix": "tenant/*"}}},
    {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
     "Resource": "arn:aws:s3:::*"}]}"#;

/// Ceph, since moto refuses nobody.
#[tokio::test]
async fn rights_below_the_prefix_suffice() {
    if storage_conformance::server(CEPH.0).is_none() {
        return;
    }
    let bucket = Bucket::new(CEPH, false).await;
    CEPH.request(Method::PUT, &format!("/{}?policy=", bucket.name), TENANT).await.unwrap();
    let connect = async |prefix: &str| {
        let mut config = bucket.config();
        (config.access_key_id, config.secret_access_key, config.anonymous) = (None, None, true);
        config.store.prefix = prefix.into();
        storage_s3::connect(config).await.map(storage_core::Storage::new)
    };
    for prefix in ["", "other"] {
        assert_eq!(connect(prefix).await.unwrap_err().kind(), ErrorKind::PermissionDenied, "{prefix}");
    }
    for prefix in ["tenant", "tenant/"] {
        let storage = connect(prefix).await.unwrap();
        storage.put("k", "v").await.unwrap();
        let keys: Vec<_> = storage.keys().await.unwrap().map_ok(|key| key.to_string()).try_collect().await.unwrap();
        assert_eq!(keys, ["k"]);
    }
}

#[tokio::test]
async fn presigned_requests_need_no_credentials() {
    let client = Connector::new(&HttpConfig::default(), |_| None).unwrap().client();
    let ask = async |request: &PresignedRequest, text: &str| {
        let mut sent = http::Request::builder().method(request.method.as_str()).uri(&request.url);
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        body(send(&client, sent.body(text.to_owned().into()).unwrap()).await?).await
    };
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let hour = Duration::from_secs(3600);
        for key in ["plain", "a b/ü?", "../odd"] {
            storage.put(key, "by us").await.unwrap();
            let get = storage.presign(key, PresignOptions::get(hour)).await.unwrap();
            assert_eq!(ask(&get, "").await.unwrap(), "by us", "{server:?} {key}");
            assert!(!format!("{get:?}").contains("ignature"));
            let put = PresignOptions::put(hour).content_type("text/plain");
            let put = storage.presign(key, put).await.unwrap();
            // The encryption is that of the configuration.
            let bound = [("x-amz-server-side-encryption", "AES256"), ("content-type", "text/plain")];
            assert_eq!(put.headers, bound.map(|(name, value)| (name.to_owned(), value.to_owned())));
            ask(&put, "by others").await.unwrap();
            assert_eq!(storage.get(key).await.unwrap().unwrap(), "by others");
            if server != MOTO {
                // It checks no signatures.
                let mut forged = get.clone();
                forged.url = get.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=3601");
                assert!(ask(&forged, "").await.is_err());
                for (index, value) in ["aws:kms", "text/html"].into_iter().enumerate() {
                    let mut other = put.clone();
                    other.headers[index].1 = value.to_owned();
                    assert!(ask(&other, "").await.is_err(), "{value}");
                }
            }
            let delete = storage.presign(key, PresignOptions::delete(hour)).await.unwrap();
            ask(&delete, "").await.unwrap();
            assert!(!storage.has(key).await.unwrap());
        }
        for (options, kind) in [
            (PresignOptions::get(hour * 24 * 8), ErrorKind::InvalidInput),
            // S3 counts in whole seconds.
            (PresignOptions::get(Duration::from_millis(999)), ErrorKind::InvalidInput),
            (PresignOptions::get(hour).content_type("text/plain"), ErrorKind::InvalidInput),
            (PresignOptions::put(hour).content_type("text\r\nx: y"), ErrorKind::InvalidInput),
            (PresignOptions::put(hour).content_length(5), ErrorKind::Unsupported),
        ] {
            let refused = storage.presign("k", options.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{options:?}: {refused}");
        }
        let rounded = storage.presign("k", PresignOptions::head(Duration::from_millis(1999))).await.unwrap();
        assert_eq!(rounded.expires_in, Duration::from_secs(1));
    }
}

#[tokio::test]
async fn versions_are_listed_over_many_pages_and_connecting_leaves_none() {
    for server in Server::all() {
        let bucket = Bucket::new(server, true).await;
        let storage = bucket.open().await;
        let capabilities = storage.info().capabilities;
        // Where Ceph keeps versions, it does not honour conditions.
        assert_eq!((capabilities.versioning, capabilities.conditional), (true, server == MOTO), "{server:?}");
        let everything = format!("/{}?versions=", bucket.name);
        let left = server.request(Method::GET, &everything, "").await.unwrap();
        let left = String::from_utf8_lossy(&left).into_owned();
        assert!(!left.contains("<Key>"), "{server:?}: {left}");
        for i in 0..5 {
            let options = PutOptions::new().metadata(Metadata::new().field("n", i));
            storage.put_with("k", format!("{i}"), options).await.unwrap();
        }
        storage.delete("k").await.unwrap();
        storage.put("k", "last").await.unwrap();
        storage.put("k2", "another").await.unwrap();
        let versions: Vec<_> = storage.versions("k").await.unwrap().try_collect().await.unwrap();
        assert_eq!(versions.len(), 6, "{server:?}");
        let fields: Vec<_> =
            versions[1..].iter().map(|entry| entry.metadata.as_ref().unwrap().fields["n"].clone()).collect();
        assert_eq!(fields, [4, 3, 2, 1, 0].map(storage_core::FieldValue::from));
        let first = versions[5].version.clone().unwrap();
        let read = GetOptions::new().version(first.clone());
        assert_eq!(storage.get_with("k", read.clone()).await.unwrap().unwrap(), "0");
        storage.delete_with("k", DeleteOptions::new().version(first)).await.unwrap();
        assert_eq!(storage.get_with("k", read).await.unwrap(), None);
        assert_eq!(storage.get("k").await.unwrap().unwrap(), "last");
    }
}

#[tokio::test]
async fn encryption_is_asked_for_and_declared_where_the_store_confirms_it() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        // Ceph takes the header and says nothing.
        assert_eq!(storage.info().capabilities.encryption, server == MOTO);
        let mut plain = bucket.config();
        plain.encryption = storage_s3::Encryption::None;
        let plain = storage_s3::connect(plain).await.unwrap();
        assert!(!storage_core::Storage::new(plain).info().capabilities.encryption);
        let mut keyed = bucket.config();
        keyed.encryption = storage_s3::Encryption::Kms;
        keyed.kms_key = Some("testkey-1".into());
        let keyed = storage_core::Storage::new(storage_s3::connect(keyed).await.unwrap());
        assert!(keyed.info().capabilities.encryption, "{server:?}");
        keyed.put("k", vec![1; 6 << 20]).await.unwrap();
        assert_eq!(keyed.get("k").await.unwrap().unwrap(), vec![1; 6 << 20]);
    }
}

/// 100 MiB in pieces that nobody holds at once.
const LARGE: u64 = 100 << 20;

fn pieces() -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    static PIECE: [u8; 1 << 20] = [7; 1 << 20];
    stream::iter((0..100).map(|_| Ok(Bytes::from_static(&PIECE))))
}

async fn open_uploads(server: Server, bucket: &str) -> usize {
    let listed = server.request(Method::GET, &format!("/{bucket}?uploads="), "").await.unwrap();
    String::from_utf8_lossy(&listed).matches("<Upload>").count()
}

/// Dropped at each stage: the begin, 20 parts, and the end.
#[tokio::test]
async fn a_large_put_that_is_dropped_is_never_late_and_leaves_no_upload_open() {
    for server in Server::all() {
        let bucket = Bucket::new(server, false).await;
        let storage = bucket.open().await;
        let stalled = Body::stream(pieces().chain(stream::pending()));
        let (held, name) = (storage.clone(), bucket.name.as_str());
        let upload = tokio::spawn(async move { held.put("stalled", stalled).await });
        // So the listing shows what is open.
        while open_uploads(server, name).await == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        upload.abort();
        let size = async |key: &str| storage.stat(key).await.unwrap().map(|entry| entry.size);
        let mut seen = vec![("stalled".to_owned(), None)];
        for sent in [1, 2, 5, 12, 21, 22] {
            let key = format!("k{sent}");
            bucket.proxy.drop_after(sent, storage.put(key.as_str(), Body::stream(pieces()))).await;
            let now = size(&key).await;
            // The end may have been sent when the drop comes.
            assert!(now.is_none() || sent > 12 && now == Some(LARGE), "{server:?}, {sent}: {now:?}");
            seen.push((key, now));
        }
        let begun = Instant::now();
        while open_uploads(server, name).await > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{server:?}: an upload is open");
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_secs(1)).await;
        for (key, then) in seen {
            assert_eq!(size(&key).await, then, "{server:?}, {key}");
        }
    }
}
