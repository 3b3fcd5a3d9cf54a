//! Large values beside other clients of GridFS: PyMongo reads ours, and nothing of ours touches its files.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{path::PathBuf, process::Stdio, time::Duration};

use futures_util::stream;
use mongodb::bson::{DateTime, Document, doc};
use storage_core::{Body, Bytes, Error, ErrorKind, Storage};
use storage_mongodb::Mongo;
use tokio::process::Command;

async fn pymongo(python: &PathBuf, collection: &str, script: &str) -> String {
    let begin = format!(
        "import gridfs, hashlib, pymongo\n\
         db = pymongo.MongoClient('mongodb://{}', directConnection=True)['{}']\n\
         fs = gridfs.GridFS(db, collection='{collection}')\n",
        support::server(),
        support::DATABASE,
    );
    let output = Command::new(python).arg("-c").arg(begin + script).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pymongo_reads_ours_and_keeps_its_own() {
    if support::is_missing_server() {
        return;
    }
    let Some(python) = support::program("python") else {
        assert!(std::env::var_os("STORAGE_TEST_REQUIRE").is_none(), "there is no Python with PyMongo");
        return;
    };
    let collection = format!("gridfs{:08x}", fastrand::u32(..));
    let mut config = support::config(&support::server(), &collection).unwrap();
    config.sweep_after = Duration::ZERO;
    let mongo = Mongo::connect(config).await.unwrap();
    let storage = Storage::new(mongo.clone());
    let value: Vec<u8> = (0..5_000_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    storage.put("dir/large", value.clone()).await.unwrap();
    let theirs = pymongo(&python, &collection, "print(fs.put(b'x' * 3000000, filename='dir/large').__str__())").await;
    let read = "import sys\nfile = fs.find_one({'filename': 'dir/large', 'metadata.storage': 1})\n\
                open(sys.argv[1], 'wb').write(file.read()) if len(sys.argv) > 1 else print(hashlib.sha256(file.read()).hexdigest(), file.length)";
    let seen = pymongo(&python, &collection, read).await;
    let ours = pymongo(
        &python,
        &collection,
        "print(hashlib.sha256(bytes(((i * 2654435761) & 0xffffffff) >> 24 for i in range(5000001))).hexdigest(), 5000001)",
    )
    .await;
    assert_eq!(seen, ours);
    storage.put("dir/large", "small").await.unwrap();
    storage.clear().await.unwrap();
    mongo.sweep().await.unwrap();
    let left = "import bson\nprint([str(file._id) for file in fs.find()], db[fs._collection.name + '.chunks'].count_documents({}))";
    let left = pymongo(&python, &collection, &left.replace("fs._collection.name", &format!("'{collection}'"))).await;
    assert_eq!(left, format!("['{theirs}'] 12"));
    support::drop_all(&collection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_finished_is_removed() {
    if support::is_missing_server() {
        return;
    }
    let collection = format!("orphans{:08x}", fastrand::u32(..));
    let mut config = support::config(&support::server(), &collection).unwrap();
    config.sweep_after = Duration::ZERO;
    let mongo = Mongo::connect(config).await.unwrap();
    let storage = Storage::new(mongo.clone());
    let database = support::client().await.database(support::DATABASE);
    let count = async |of: &str| {
        let count = database.run_command(doc! { "count": format!("{collection}.{of}") }).await.unwrap();
        count.get_i32("n").unwrap()
    };

    // A body that fails.
    let pieces = (0..6).map(|i| match i {
        5 => Err(Error::new(ErrorKind::Other, "broken")),
        _ => Ok(Bytes::from(vec![i; 1 << 20])),
    });
    storage.put("failed", Body::stream(stream::iter(pieces))).await.unwrap_err();
    // A caller that goes away in mid-upload.
    let endless = Body::stream(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok(Bytes::from(vec![1; 1 << 20])), ()))
    }));
    let _ = tokio::time::timeout(Duration::from_millis(400), storage.put("dropped", endless)).await;
    // A process that was killed: a lease, chunks, and nobody who knows.
    let id = mongodb::bson::oid::ObjectId::new();
    for (of, document) in [
        (
            "leases",
            doc! { "_id": id, "key": "killed", "state": "open", "renewed": mongodb::bson::DateTime::from_millis(0) },
        ),
        ("chunks", doc! { "files_id": id, "n": 0, "data": "" }),
    ] {
        database
            .collection::<mongodb::bson::Document>(&format!("{collection}.{of}"))
            .insert_one(document)
            .await
            .unwrap();
    }
    for _ in 0..100 {
        mongo.sweep().await.unwrap();
        if count("leases").await == 0 && count("chunks").await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!([count("leases").await, count("chunks").await, count("files").await], [0, 0, 0]);
    assert_eq!(storage.stat("failed").await.unwrap(), None);
    assert_eq!(storage.stat("dropped").await.unwrap(), None);
    support::drop_all(&collection).await;
}

/// A lease may outlive its writer, and name the key that had the file before a rename.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_is_not_swept_for_its_old_key() {
    if support::is_missing_server() {
        return;
    }
    let collection = format!("leases{:08x}", fastrand::u32(..));
    let mut config = support::config(&support::server(), &collection).unwrap();
    config.sweep_after = Duration::ZERO;
    let mongo = Mongo::connect(config).await.unwrap();
    let storage = Storage::new(mongo.clone());
    let database = support::client().await.database(support::DATABASE);
    let all = |of: &str| database.collection::<Document>(&format!("{collection}.{of}"));
    let value = vec![7; 2 << 20];
    // The lease is there before the rename, comes behind it, or has been taken by a sweep that has not ended.
    for (state, before) in [("replaced", true), ("committing", true), ("replaced", false), ("taken", true)] {
        storage.put("from", value.clone()).await.unwrap();
        let file = all("files").find_one(doc! {}).await.unwrap().unwrap().get_object_id("_id").unwrap();
        let lease = doc! { "_id": file, "key": "from", "state": state, "renewed": DateTime::from_millis(0) };
        if before {
            all("leases").insert_one(&lease).await.unwrap();
        }
        let tx = storage.begin().await.unwrap();
        tx.rename("from", "to").await.unwrap();
        tx.commit().await.unwrap();
        if !before {
            all("leases").insert_one(&lease).await.unwrap();
        }
        mongo.sweep().await.unwrap();
        assert!(storage.get("to").await.unwrap().unwrap() == value, "{state}, before: {before}");
        storage.delete("to").await.unwrap();
        for _ in 0..100 {
            mongo.sweep().await.unwrap();
            if all("leases").count_documents(doc! {}).await.unwrap() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for of in ["files", "chunks", "leases"] {
            assert_eq!(all(of).count_documents(doc! {}).await.unwrap(), 0, "{of}; {state}, before: {before}");
        }
    }
    support::drop_all(&collection).await;
}
