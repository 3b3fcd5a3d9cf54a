//! storage-mongodb beside the driver it stands on, and the driver's GridFS.

use std::{env, fmt::Write as _, process::Stdio};

use bytes::Bytes;
use futures_util::{AsyncReadExt, AsyncWriteExt};
use mongodb::{
    Client, Collection, Database,
    bson::{Binary, DateTime, Document, doc, spec::BinarySubtype},
    gridfs::GridFsBucket,
    options::{Acknowledgment, ClientOptions, GridFsBucketOptions, ReplaceOneModel, WriteConcern},
};
use storage_config::ConnectionConfig;
use storage_core::Storage;
use storage_mongodb::{Config, Mongo};
use tokio::process::Command;

use crate::{
    Result,
    groups::{Group, OURS, entry, group},
    machine::{Machine, version},
    report::{self, time},
    subject::{ENTRIES, LISTED, Operation, Subject},
    transfer::{self, Pieces, Transfer},
    wire,
};

const DRIVER: &str = "driver";
const SAME: &str = "driver, same documents";
const GRIDFS_1: &str = "GridFS, 1 MiB";
const GRIDFS_16: &str = "GridFS, 16 MiB";
const DATABASE: &str = "bench";
const CONNECTIONS: u32 = 10;
const MIB: u64 = 256;
const ROUNDS: usize = 7;
/// Says where the server is, to the process of a sample.
const SERVER: &str = "STORAGE_BENCH_MONGODB";

/// Everything that was measured.
pub(crate) struct Run {
    groups: Vec<Group>,
    rows: Vec<Row>,
    /// What is done, and how many round trips ours and the driver's take.
    trips: Vec<(&'static str, usize, usize)>,
}

/// One direction, by all libraries.
struct Row {
    direction: &'static str,
    /// Nanoseconds and KiB, the shortest first.
    measured: Vec<(&'static str, Vec<(f64, u64)>)>,
}

/// A collection of one document for each key.
#[derive(Clone)]
struct Driver {
    client: Client,
    collection: Collection<Document>,
}

impl Driver {
    async fn connect(server: &str) -> Result<Self> {
        let client = client(server).await?;
        let collection = client.database(DATABASE).collection("driver");
        Ok(Self { client, collection })
    }

    fn document(key: &str, value: &Bytes) -> Document {
        let data = Binary { subtype: BinarySubtype::Generic, bytes: value.to_vec() };
        doc! { "_id": key, "size": value.len() as i64, "data": data }
    }
}

impl Subject for Driver {
    async fn put(&self, key: &str, value: Bytes) -> Result<()> {
        self.collection.replace_one(doc! { "_id": key }, Self::document(key, &value)).upsert(true).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let found = self.collection.find_one(doc! { "_id": key }).await?.ok_or("no document")?;
        Ok(found.get_binary_generic("data")?.clone().into())
    }

    async fn stat(&self, key: &str) -> Result<u64> {
        let found = self.collection.find_one(doc! { "_id": key }).projection(doc! { "data": 0 }).await?;
        Ok(found.ok_or("no document")?.get_i64("size")?.cast_unsigned())
    }

    async fn list(&self, _: &str) -> Result<usize> {
        Err("listings are not measured here".into())
    }

    async fn write(&self, _: &str, _: Vec<Bytes>) -> Result<()> {
        Err("streams are measured in processes of their own".into())
    }

    async fn read(&self, _: &str) -> Result<usize> {
        Err("streams are measured in processes of their own".into())
    }

    async fn batch(&self, items: Vec<(String, Bytes)>) -> Result<()> {
        let replace = |(key, value): (String, Bytes)| {
            let model = ReplaceOneModel::builder()
                .namespace(self.collection.namespace())
                .filter(doc! { "_id": &key })
                .replacement(Self::document(&key, &value))
                .upsert(true);
            model.build()
        };
        self.client.bulk_write(items.into_iter().map(replace)).ordered(false).await?;
        Ok(())
    }
}

/// The driver alone with the documents and indexes that ours has, to tell what they cost from what our code does.
#[derive(Clone)]
struct Same(Driver);

impl Same {
    async fn connect(server: &str) -> Result<Self> {
        let client = client(server).await?;
        let database = client.database(DATABASE);
        let index = |keys: Document, name: &str| doc! { "key": keys, "name": name };
        let indexes = [
            index(doc! { "metadata.type": 1 }, "type"),
            index(doc! { "metadata.tags": 1 }, "tags"),
            index(doc! { "metadata.fields": 1 }, "fields"),
            index(doc! { "modified": 1, "_id": 1 }, "modified"),
        ];
        database.run_command(doc! { "createIndexes": "same", "indexes": indexes.to_vec() }).await?;
        Ok(Self(Driver { collection: database.collection("same"), client }))
    }
}

impl Subject for Same {
    async fn put(&self, key: &str, value: Bytes) -> Result<()> {
        let rev = format!("{:032x}", value.len());
        let data = Binary { subtype: BinarySubtype::Generic, bytes: value.to_vec() };
        let metadata = doc! { "tags": [], "fields": [] };
        let update = doc! {
            "$set": { "rev": &rev, "size": value.len() as i64, "metadata": metadata, "data": data },
            "$unset": { "file": "", "chunk": "" },
            "$setOnInsert": { "created": DateTime::now(), "born": &rev },
            "$currentDate": { "modified": true },
        };
        let of_key = doc! { "_id": key, "file": { "$exists": false } };
        self.0.collection.update_one(of_key, update).upsert(true).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Subject::get(&self.0, key).await
    }

    async fn stat(&self, key: &str) -> Result<u64> {
        Subject::stat(&self.0, key).await
    }

    async fn list(&self, prefix: &str) -> Result<usize> {
        Subject::list(&self.0, prefix).await
    }

    async fn write(&self, key: &str, pieces: Vec<Bytes>) -> Result<()> {
        Subject::write(&self.0, key, pieces).await
    }

    async fn read(&self, key: &str) -> Result<usize> {
        Subject::read(&self.0, key).await
    }

    async fn batch(&self, items: Vec<(String, Bytes)>) -> Result<()> {
        Subject::batch(&self.0, items).await
    }
}

/// The driver's files, fed with pieces of this size.
struct Files(GridFsBucket);

impl Files {
    async fn connect(server: &str) -> Result<Self> {
        let options =
            GridFsBucketOptions::builder().bucket_name("gridfs".to_owned()).write_concern(confirmed()).build();
        Ok(Self(client(server).await?.database(DATABASE).gridfs_bucket(options)))
    }
}

impl Transfer for Files {
    async fn up(&self, key: &str, pieces: Pieces) -> Result<()> {
        let mut file = self.0.open_upload_stream(key).await?;
        for piece in pieces {
            file.write_all(&piece).await?;
        }
        file.close().await?;
        Ok(())
    }

    async fn down(&self, key: &str) -> Result<u64> {
        let mut file = self.0.open_download_stream_by_name(key).await?;
        let (mut buffer, mut len) = (vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut buffer).await? {
                0 => return Ok(len),
                n => len += n as u64,
            }
        }
    }
}

fn confirmed() -> WriteConcern {
    let mut confirmed = WriteConcern::from(Acknowledgment::Majority);
    confirmed.journal = Some(true);
    confirmed
}

async fn client(server: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(format!("mongodb://{server}/?directConnection=true")).await?;
    options.max_pool_size = Some(CONNECTIONS);
    options.write_concern = Some(confirmed());
    Ok(Client::with_options(options)?)
}

async fn ours(server: &str) -> Result<Storage> {
    let uri = format!(
        "mongodb://{server}/{DATABASE}?directConnection=true&collection=ours&max_connections={CONNECTIONS}&timeout=120"
    );
    Ok(Storage::new(Mongo::connect(Config::from_connection(&ConnectionConfig::new(uri))?).await?))
}

/// `host:port` of a server whose database `bench` may be dropped.
pub(crate) async fn run(server: &str, quick: bool) -> Result<Run> {
    let server = server.trim_start_matches("mongodb://").trim_end_matches('/');
    let database: Database = client(server).await?.database(DATABASE);
    database.drop().await?;
    let (ours, driver, same) = (ours(server).await?, Driver::connect(server).await?, Same::connect(server).await?);
    fill(&ours).await?;
    fill(&driver).await?;
    fill(&same).await?;
    let all = vec![entry(OURS, &ours).await?, entry(DRIVER, &driver).await?, entry(SAME, &same).await?];
    use Operation::{Get, Put, Stat};
    let groups = vec![group("Small values", all, &[Get, Stat, Put], quick).await?];
    database.drop().await?;
    let trips = trips(server).await?;
    let rows = transfers(server, if quick { 1 } else { ROUNDS }).await?;
    database.drop().await?;
    Ok(Run { groups, rows, trips })
}

/// What `get` and `stat` read.
async fn fill<S: Subject>(subject: &S) -> Result<()> {
    let value = Bytes::from(vec![7; 4 << 10]);
    for begin in (0..ENTRIES).step_by(1000) {
        let keys = (begin..begin + 1000).map(|i| format!("{LISTED}{i:05}"));
        subject.batch(keys.map(|key| (key, value.clone())).collect()).await?;
    }
    Ok(())
}

/// Counts between the client and the server.
async fn trips(server: &str) -> Result<Vec<(&'static str, usize, usize)>> {
    let ((to_ours, of_ours), (to_driver, of_driver)) = (wire::counting(server)?, wire::counting(server)?);
    let (ours, driver, files) =
        (ours(&to_ours).await?, Driver::connect(&to_driver).await?, Files::connect(&to_driver).await?);
    let value = Bytes::from(vec![7; 4096]);
    let batch = || (0..1000).map(|i| (format!("batch/{i}"), Bytes::from_static(b"v"))).collect::<Vec<_>>();
    // What the driver does once.
    Subject::put(&driver, "k", value.clone()).await?;
    files.up("warm", Pieces::new(1, 1 << 20)).await?;
    let mut rows = Vec::new();
    let mut note = |what, (): (), (): ()| rows.push((what, of_ours.take(), of_driver.take()));
    note("", (), ());
    note("put 4 KiB", Subject::put(&ours, "k", value.clone()).await?, Subject::put(&driver, "k", value).await?);
    let _ = (Subject::get(&ours, "k").await?, Subject::get(&driver, "k").await?);
    note("get 4 KiB", (), ());
    let _ = (Subject::stat(&ours, "k").await?, Subject::stat(&driver, "k").await?);
    note("stat", (), ());
    note("batch of 1,000 puts", Subject::batch(&ours, batch()).await?, Subject::batch(&driver, batch()).await?);
    let (mut up, mut down) = ((0, 0), (0, 0));
    ours.up("large", Pieces::new(64, 1 << 20)).await?;
    files.up("large", Pieces::new(64, 1 << 20)).await?;
    (up.0, up.1) = (of_ours.take(), of_driver.take());
    files.up("large, in larger pieces", Pieces::new(4, 16 << 20)).await?;
    let larger = of_driver.take();
    ours.down("large").await?;
    files.down("large").await?;
    (down.0, down.1) = (of_ours.take(), of_driver.take());
    rows.push(("64 MiB up, the driver's GridFS fed with 1 MiB", up.0, up.1));
    rows.push(("64 MiB up, the driver's GridFS fed with 16 MiB", up.0, larger));
    rows.push(("64 MiB down", down.0, down.1));
    Ok(rows.into_iter().filter(|row| !row.0.is_empty()).collect())
}

/// The process of a library says what it needed. The libraries take turns.
async fn transfers(server: &str, rounds: usize) -> Result<Vec<Row>> {
    const LIBRARIES: [&str; 3] = [OURS, GRIDFS_1, GRIDFS_16];
    const DIRECTIONS: [&str; 2] = ["up", "down"];
    let mut rows =
        DIRECTIONS.map(|direction| Row { direction, measured: LIBRARIES.map(|one| (one, Vec::new())).into() });
    for round in 0..rounds {
        for turn in 0..LIBRARIES.len() {
            // Nobody always comes after the same one.
            let i = (round + turn) % LIBRARIES.len();
            for row in &mut rows {
                eprintln!("{MIB} MiB {}, {}", row.direction, LIBRARIES[i]);
                let key = format!("value {i}-{round}");
                let mut child = Command::new(env::current_exe()?);
                child.args(["--transfer-mongodb", LIBRARIES[i], row.direction, &key, &MIB.to_string()]);
                let output = child.env(SERVER, server).stderr(Stdio::inherit()).output().await?;
                let said = String::from_utf8(output.stdout)?;
                let said = said.trim().split_once(' ').filter(|_| output.status.success());
                let (nanoseconds, kib) =
                    said.ok_or_else(|| format!("{} {}: it failed", LIBRARIES[i], row.direction))?;
                row.measured[i].1.push((nanoseconds.parse()?, kib.parse()?));
            }
        }
        // Lest the server has more to keep in each round.
        client(server).await?.database(DATABASE).drop().await?;
    }
    for (_, samples) in rows.iter_mut().flat_map(|row| &mut row.measured) {
        samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(rows.into())
}

/// The process of a sample.
pub(crate) async fn child(library: &str, arguments: &[String]) -> Result<String> {
    let server = env::var(SERVER)?;
    if library == OURS {
        return transfer::run_in_pieces(&ours(&server).await?, arguments, 1 << 20).await;
    }
    let piece = if library == GRIDFS_16 { 16 << 20 } else { 1 << 20 };
    transfer::run_in_pieces(&Files::connect(&server).await?, arguments, piece).await
}

pub(crate) fn markdown(machine: &Machine, run: &Run, quick: bool) -> String {
    let Machine { cores, filesystem, system, date, load } = machine;
    let quick = if quick { "**A quick run**, with fewer samples.\n\n" } else { "" };
    format!(
        "<!-- Written by `cargo xtask bench --mongodb`. -->\n# Benchmarks: MongoDB\n\n\
         storage-mongodb beside the driver it stands on, mongodb {}, and the driver's GridFS, measured side by side in one run of `cargo xtask bench \
         --mongodb` on {date}: {cores} cores, {system}, files on {filesystem}, load average before the run {load:.1}. The server is \
         SecantusDB on loopback, **an emulator in Python**, whose own time is most of each figure; MongoDB itself was never tried.\n\n{quick}{METHOD}{}",
        version("mongodb"),
        tables(run)
    )
}

const METHOD: &str = "\
How small values are measured, [benchmarks.md](benchmarks.md) says. *driver* is what a program would write that needs no more: a document for each \
key, no index, `replace_one` with upsert, `find_one`, and `bulk_write`; *same documents*: the driver with the indexes and the update of storage-mongodb, \
which the server has more work with. All confirm each write as `w: majority, j: true` and have 10 connections. storage-mongodb's \
entries have etags, conditions, dates by the server and metadata besides. Listings, queries and batches are not timed: the emulator looks through the whole collection for each page, and \
commits each item of a batch by itself.

Each sample of a large value is a process of its own, which connects, writes and reads a value of 1 MiB, and then writes or reads the large one; the libraries \
take turns. A cell is the median time with the shortest and the longest, and the most memory by which a process grew meanwhile. Ours is fed with \
pieces of 1 MiB, each with memory of its own; GridFS with pieces of the size that its column names.

";

pub(crate) fn tables(run: &Run) -> String {
    let mut text = report::tables(&run.groups);
    for group in &run.groups {
        for row in &group.rows {
            if let [ours, driver, same] = &row.measured[..] {
                let (bare, same) = (ours.median / driver.median, ours.median / same.median);
                let (operation, tasks) = (row.operation, row.tasks);
                let _ = writeln!(
                    text,
                    "- {operation}, {tasks} in flight: {bare:.2}× the driver's time, {same:.2}× of that with the same documents"
                );
            }
        }
    }
    let _ = write!(text, "\n## A value of {MIB} MiB\n\n| direction |");
    for (library, _) in run.rows.first().map_or(&[][..], |row| &row.measured) {
        let _ = write!(text, " {library} |");
    }
    text.push_str(" samples |\n|---|---|---|---|---|\n");
    for Row { direction, measured } in &run.rows {
        let _ = write!(text, "| {direction} |");
        for (_, samples) in measured {
            let [low, median, high] = [0, samples.len() / 2, samples.len() - 1].map(|i| samples[i].0);
            let peak = samples.iter().map(|(_, kib)| kib.div_ceil(1 << 10)).max().unwrap_or_default();
            let _ = write!(text, " {} ({} – {}), {peak} MiB |", time(median), time(low), time(high));
        }
        let _ = writeln!(text, " {} |", measured.first().map_or(0, |(_, samples)| samples.len()));
    }
    text.push('\n');
    for Row { direction, measured } in &run.rows {
        let median = |i: usize| measured.get(i).map_or(f64::NAN, |(_, samples)| samples[samples.len() / 2].0);
        let (one, sixteen) = (median(0) / median(1), median(0) / median(2));
        let _ = writeln!(text, "- {direction}: {one:.2}× the time of GridFS in 1 MiB, {sixteen:.2}× in 16 MiB");
    }
    text.push_str("\n## Round trips\n\n| | storage | driver |\n|---|---|---|\n");
    for (what, ours, driver) in &run.trips {
        let _ = writeln!(text, "| {what} | {ours} | {driver} |");
    }
    text
}
