//! Connecting: the server, the schema, and whether the server keeps what every write rests on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use futures_util::future::{join_all, try_join_all};
use mongodb::{
    Client,
    bson::{Bson, DateTime, Document, doc, oid::ObjectId},
    options::ClientOptions,
};
use storage_core::{BackendInfo, Capabilities, Error, ErrorKind, Isolation, Result};
use tokio::{runtime::Handle, time};

use crate::{
    Config, document, error, files,
    session::{Session, Store},
    task::Tasks,
};

/// The version of the schema that this crate writes.
const SCHEMA: i32 = 1;
/// How many race for one document when a server is tried, how often each at least and at most, and how often one must have come second.
const WRITERS: usize = 8;
const LEAST: usize = 8;
const MOST: usize = 200;
const MEETINGS: usize = 40;
/// The processes of servers that this process has tried.
static TRIED: Mutex<Vec<ObjectId>> = Mutex::new(Vec::new());

pub(crate) async fn open(config: Config) -> Result<Session> {
    config.check()?;
    let runtime = Handle::try_current().map_err(|e| {
        Error::new(ErrorKind::Config, "a MongoDB database can be connected only in a tokio runtime").with_source(e)
    })?;
    let uri = config.uri();
    let options = time::timeout(config.timeout, ClientOptions::parse(uri.expose())).await;
    let mut options = match options {
        Err(_) => return Err(error::timed_out()),
        // What the driver says may repeat the URI.
        Ok(Err(e)) => return Err(error::from_driver(&e)),
        Ok(Ok(options)) => options,
    };
    options.server_selection_timeout = Some(config.timeout.mul_f64(0.9));
    options.connect_timeout = Some(config.timeout.mul_f64(0.9));
    options.max_pool_size = Some(config.max_connections);
    let client = Client::with_options(options).map_err(|e| error::from_driver(&e))?;
    let database = client.database(config.database());
    let mut store = Store {
        info: Arc::new(BackendInfo::new("mongodb", Capabilities::new())),
        client,
        database,
        collection: config.collection.clone(),
        inline_limit: config.inline_limit,
        versions: config.versions.map(|versions| u64::from(versions.get())),
        unsafe_server: config.unsafe_server,
        timeout: config.timeout,
        sweep_after: config.sweep_after,
        tasks: Tasks::new(runtime, config.timeout),
        closed: AtomicBool::new(false),
        ahead: AtomicI64::new(0),
        copies_chunks: AtomicBool::new(true),
    };
    let hello = store.plain(doc! { "hello": 1 }).await?;
    let anonymous = config.is_anonymous();
    // A server with users lets nobody else do more than say hello.
    let wants_a_user = |e: Error| {
        match e.kind() {
        ErrorKind::PermissionDenied if anonymous => Error::new(
            ErrorKind::Unauthenticated,
            "the server wants a user and a password; put them into the URI, as in `mongodb://user:password@host/database`",
        )
        .with_source(e),
        _ => e,
    }
    };
    let now = clock(&store, &hello);
    let replicated = hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    store.info = Arc::new(info(replicated, &config));
    let product = store.plain(doc! { "buildInfo": 1 }).await.map_err(|failed| wants_a_user(failed.error))?;
    // Version 1 says `ferretdbVersion`, version 2 `ferretdb`.
    if product.keys().any(|field| field.starts_with("ferretdb")) && !config.unsafe_server {
        return Err(not_atomic("FerretDB"));
    }
    // The server chooses it anew whenever it starts.
    let process = hello.get_document("topologyVersion").and_then(|version| version.get_object_id("processId")).ok();
    prepare(&store, config.unsafe_server, process).await.map_err(wants_a_user)?;
    files::sweep(&store, now).await?;
    Ok(Session::new(Arc::new(store)))
}

pub(crate) async fn sweep(store: &Store) -> Result<()> {
    let hello = store.plain(doc! { "hello": 1 }).await?;
    files::sweep(store, clock(store, &hello)).await
}

/// Takes the store's clock from an answer. It was read before the answer came, so ours is never taken for ahead of it.
fn clock(store: &Store, hello: &Document) -> DateTime {
    let ours = document::date(SystemTime::now());
    let theirs = hello.get_datetime("localTime").copied().unwrap_or(ours);
    store.ahead.store(theirs.timestamp_millis() - ours.timestamp_millis(), Ordering::Relaxed);
    theirs
}

fn info(replicated: bool, config: &Config) -> BackendInfo {
    let mut capabilities =
        Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().queryable();
    capabilities.transactions = replicated;
    capabilities.distributed = replicated;
    capabilities.versioning = config.versions.is_some();
    let mut info = BackendInfo::new("mongodb", capabilities);
    info.name = "MongoDB".into();
    info.description = match (replicated, config.unsafe_server) {
        (_, true) => {
            "Documents of a server that is used by a single client only, for it may lose updates of several".into()
        }
        (true, _) => "Documents of a MongoDB replica set or sharded cluster".into(),
        (false, _) => "Documents of a MongoDB standalone server".into(),
    };
    info.version = env!("CARGO_PKG_VERSION").into();
    info.limits.time_granularity = time::Duration::from_millis(1);
    info.isolation = Isolation::Snapshot;
    info
}

/// Creates what is not there. Others may do the same at the same time.
async fn prepare(store: &Store, unsafe_server: bool, process: Option<ObjectId>) -> Result<()> {
    let record = doc! { "find": store.name("schema"), "filter": { "_id": "storage" }, "limit": 1, "singleBatch": true };
    let record = first(&store.command(record).await?).cloned();
    let probed = record.as_ref().is_some_and(|record| record.get_bool("probed").is_ok_and(|probed| probed));
    match record.map(|record| record.get_i32("version")) {
        // What a client that uses the server alone has made says nothing of the server.
        Some(Ok(version)) if version <= SCHEMA && !probed && !unsafe_server => {
            try_server(store, process).await?;
            return note(store, doc! { "$set": { "probed": true } }).await;
        }
        Some(Ok(version)) if version <= SCHEMA => return Ok(()),
        Some(Ok(_)) => {
            let message = "the collection was made by a newer version of this crate; use that version";
            return Err(Error::new(ErrorKind::Config, message));
        }
        Some(Err(_)) => {
            return Err(Error::new(ErrorKind::Corrupt, "the record of the schema is not readable; restore a backup"));
        }
        None => {}
    }
    check_shape(store).await?;
    if !unsafe_server {
        try_server(store, process).await?;
    }
    let index = |keys: Document, name: &str, unique: bool| doc! { "key": keys, "name": name, "unique": unique };
    // A collection that is missing is made with its indexes.
    let all = [
        (
            store.collection.clone(),
            vec![
                index(doc! { "metadata.type": 1 }, "type", false),
                index(doc! { "metadata.tags": 1 }, "tags", false),
                index(doc! { "metadata.fields": 1 }, "fields", false),
                index(doc! { "modified": 1, "_id": 1 }, "modified", false),
            ],
        ),
        (store.name("files"), vec![index(doc! { "filename": 1, "uploadDate": 1 }, "filename_1_uploadDate_1", false)]),
        (store.name("chunks"), vec![index(doc! { "files_id": 1, "n": 1 }, "files_id_1_n_1", true)]),
        (
            store.name("versions"),
            vec![index(doc! { "key": 1, "n": -1 }, "key_1_n_-1", false), index(doc! { "file": 1 }, "file_1", false)],
        ),
        (store.name("leases"), vec![index(doc! { "renewed": 1 }, "renewed", false)]),
    ];
    let make = |(name, indexes)| store.command(doc! { "createIndexes": name, "indexes": indexes });
    try_join_all(all.map(make)).await?;
    note(store, doc! { "$setOnInsert": { "version": SCHEMA, "probed": !unsafe_server } }).await
}

/// Changes the record of the schema, and makes it where there is none.
async fn note(store: &Store, update: Document) -> Result<()> {
    let update = doc! { "q": { "_id": "storage" }, "u": update, "upsert": true };
    let concern = doc! { "w": "majority", "j": true };
    let answer =
        store.command(doc! { "update": store.name("schema"), "updates": [update], "writeConcern": concern }).await?;
    match error::write_errors(&answer).first() {
        None | Some((_, 11000)) => Ok(()),
        Some((_, code)) => Err(error::from_code(*code)),
    }
}

/// A collection that others made and use in another way is left alone.
async fn check_shape(store: &Store) -> Result<()> {
    let wrong = |message: &str| Err(Error::new(ErrorKind::Config, message));
    let list = doc! { "listCollections": 1, "filter": { "name": &store.collection } };
    if let Some(there) = first(&store.command(list).await?) {
        let simple = |options: &Document| match options.get_document("collation") {
            Ok(collation) => collation.get_str("locale").is_ok_and(|locale| locale == "simple"),
            Err(_) => true,
        };
        if there.get_str("type").is_ok_and(|kind| kind != "collection") {
            return wrong(
                "there is a view or time series in the place of the collection; name another by `collection`",
            );
        }
        if !there.get_document("options").map_or(true, simple) {
            return wrong(
                "the collection has a default collation, which changes the order of keys; name another by `collection`",
            );
        }
    }
    let ours = doc! { "_id": { "$type": "string" }, "rev": { "$exists": true } };
    let find = doc! { "find": &store.collection, "filter": { "$nor": [ours] }, "limit": 1, "singleBatch": true };
    match first(&store.command(find).await?) {
        Some(_) => wrong("the collection holds documents of another shape; name another by `collection`"),
        None => Ok(()),
    }
}

/// Tries a server, unless this process has tried it since it was started.
async fn try_server(store: &Store, process: Option<ObjectId>) -> Result<()> {
    let tried = || TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if process.is_some_and(|process| tried().contains(&process)) {
        return Ok(());
    }
    probe(store).await?;
    tried().extend(process);
    Ok(())
}

/// Whether keys are in the order of their bytes, and conditional updates of one document never both succeed.
async fn probe(store: &Store) -> Result<()> {
    let id = format!("probe {}", document::revision());
    let name = store.name("schema");
    let texts = ["", "Z", "a", "a\u{1}", "aa", "z", "\u{e000}", "\u{10000}"];
    let mut documents: Vec<Document> = texts.iter().map(|text| doc! { "_id": format!("{id}{text}"), "n": 0 }).collect();
    // The first is the counter. A server that reads, changes and writes it in turn takes long for one of this size, and others come between.
    documents[0].insert("filling", "x".repeat(1 << 16));
    store.command(doc! { "insert": &name, "documents": documents }).await?;
    let outcome = probed(store, &name, &id, &texts).await;
    let deletes = doc! { "q": { "_id": document::prefixed(&id) }, "limit": 0 };
    store.command(doc! { "delete": &name, "deletes": [deletes] }).await?;
    outcome
}

async fn probed(store: &Store, name: &str, id: &str, texts: &[&str]) -> Result<()> {
    let find = doc! {
        "find": name,
        "filter": { "_id": document::prefixed(id) },
        "projection": { "n": 1 },
        "sort": { "_id": 1 },
        "limit": 100,
        "singleBatch": true,
    };
    let answer = store.command(find).await?;
    let found = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let found: Vec<&str> = found
        .into_iter()
        .flatten()
        .filter_map(|document| document.as_document()?.get_str("_id").ok()?.strip_prefix(id))
        .collect();
    if found != texts {
        return Err(Error::new(
            ErrorKind::Config,
            "the server does not sort texts by their bytes, on which listings rest",
        ));
    }
    // Each reads the counter and raises it by one where it is still the same, until often enough it was not: then they have met.
    let read = || async {
        let find =
            doc! { "find": name, "filter": { "_id": id }, "projection": { "n": 1 }, "limit": 1, "singleBatch": true };
        let answer = store.command(find).await?;
        Ok::<_, Error>(first(&answer).and_then(|counter| counter.get_i32("n").ok()).unwrap_or(-1))
    };
    let lost = AtomicUsize::new(0);
    let race = join_all((0..WRITERS).map(|_| async {
        let mut raised = 0;
        for round in 0.. {
            if round == MOST || round >= LEAST && lost.load(Ordering::Relaxed) >= MEETINGS {
                break;
            }
            let n = read().await?;
            let update = doc! { "q": { "_id": id, "n": n }, "u": { "$set": { "n": n + 1 } } };
            match store.command(doc! { "update": name, "updates": [update] }).await?.get_i32("n") {
                Ok(1) => raised += 1,
                _ => drop(lost.fetch_add(1, Ordering::Relaxed)),
            }
        }
        Ok::<_, Error>(raised)
    }));
    let raised = race.await.into_iter().sum::<Result<i32>>()?;
    if read().await? != raised {
        return Err(not_atomic("the server"));
    }
    Ok(())
}

fn not_atomic(who: &str) -> Error {
    let message = format!(
        "{who} lets conditional updates of one document succeed twice: compare-and-set, on which every write rests, does not hold; \
         use MongoDB, or set `unsafe_server` for a single client"
    );
    Error::new(ErrorKind::Config, message)
}

fn first(answer: &Document) -> Option<&Document> {
    let batch = answer.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).ok()?;
    batch.first().and_then(Bson::as_document)
}
