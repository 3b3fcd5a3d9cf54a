//! Large values in a bucket, as streams: storage-s3 beside the client it stands on and OpenDAL's. Each sample is a process.

use std::{env, fmt::Write, path::Path, sync::Arc};

use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;
use object_store::{
    ObjectStore, ObjectStoreExt, WriteMultipart,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential},
    client::HttpRequestBody,
    path::Path as Place,
};
use storage_config::Secret;
use storage_core::{Body, GetOptions, Storage};
use storage_object_store::http::{Connector, HttpConfig, body, send};
use tokio::process::Command;

use crate::{
    Result,
    groups::{OBJECT_STORE, OPENDAL, OURS},
    machine::{Machine, version},
    report::time,
    transfer::{self, BUCKET, Bucket, PART, PARTS, Pieces, Transfer},
};

const REGION: &str = "us-east-1";
/// MiB, and how often.
const SIZES: [(u64, usize); 2] = [(64, 11), (1024, 3)];

/// One size and direction, by all libraries.
pub(crate) struct Row {
    mib: u64,
    direction: &'static str,
    measured: Vec<Measured>,
}

struct Measured {
    library: &'static str,
    /// Nanoseconds and KiB, the shortest first.
    samples: Vec<(f64, u64)>,
}

/// The process of a library says what it needed. The libraries take turns.
pub(crate) async fn run(server: &str, opendal: &Path, quick: bool) -> Result<Vec<Row>> {
    let address = format!("{server}/bench");
    make(&Bucket::parse(&address)?).await?;
    let this = env::current_exe()?;
    let programs = [(OURS, this.as_path()), (OBJECT_STORE, &this), (OPENDAL, opendal)];
    let mut rows = Vec::new();
    for (mib, rounds) in SIZES {
        let rounds = if quick { 1 } else { rounds };
        let mut all: [Vec<_>; 2] =
            std::array::from_fn(|_| programs.map(|(library, _)| Measured { library, samples: Vec::new() }).into());
        for round in 0..rounds {
            for turn in 0..programs.len() {
                // Nobody always comes after the same one.
                let i = (round + turn) % programs.len();
                let (library, program) = programs[i];
                for (place, direction) in ["up", "down"].into_iter().enumerate() {
                    let mut child = Command::new(program);
                    child.args(["--transfer", library, direction, "value", &mib.to_string()]).env(BUCKET, &address);
                    let output = child.stderr(std::process::Stdio::inherit()).output().await?;
                    let said = String::from_utf8(output.stdout)?;
                    let said = said.trim().split_once(' ').filter(|_| output.status.success());
                    let (nanoseconds, kib) = said.ok_or_else(|| format!("{library} {direction}: it failed"))?;
                    all[place][i].samples.push((nanoseconds.parse()?, kib.parse()?));
                }
            }
        }
        for (direction, mut measured) in ["up", "down"].into_iter().zip(all) {
            measured.iter_mut().for_each(|one| one.samples.sort_by(|a, b| a.0.total_cmp(&b.0)));
            rows.push(Row { mib, direction, measured });
        }
    }
    Ok(rows)
}

/// The process of a library that is linked here.
pub(crate) async fn child(library: &str, arguments: &[String]) -> Result<String> {
    let bucket = Bucket::given()?;
    if library == OURS {
        let mut config = storage_s3::Config::new(bucket.name);
        config.endpoint = Some(bucket.endpoint);
        config.region = Some(REGION.into());
        config.access_key_id = Some(Secret::new(bucket.key));
        config.secret_access_key = Some(Secret::new(bucket.secret));
        return transfer::run(&Storage::new(storage_s3::connect(config).await?), arguments).await;
    }
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
    let builder = AmazonS3Builder::new().with_bucket_name(bucket.name).with_endpoint(bucket.endpoint);
    let builder = builder.with_region(REGION).with_access_key_id(bucket.key).with_secret_access_key(bucket.secret);
    let store: Arc<dyn ObjectStore> = Arc::new(builder.with_allow_http(true).build()?);
    transfer::run(&store, arguments).await
}

impl Transfer for Storage {
    async fn up(&self, key: &str, pieces: Pieces) -> Result<()> {
        self.put(key, Body::stream(stream::iter(pieces.map(Ok)))).await?;
        Ok(())
    }

    async fn down(&self, key: &str) -> Result<u64> {
        let object = self.open(key, GetOptions::new()).await?.ok_or("there is no value")?;
        let mut pieces = object.body.into_stream();
        let mut len = 0;
        while let Some(piece) = pieces.try_next().await? {
            len += piece.len() as u64;
        }
        Ok(len)
    }
}

impl Transfer for Arc<dyn ObjectStore> {
    async fn up(&self, key: &str, pieces: Pieces) -> Result<()> {
        let upload = self.put_multipart(&Place::parse(key)?).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        for piece in pieces {
            upload.wait_for_capacity(PARTS).await?;
            upload.put(piece);
        }
        upload.finish().await?;
        Ok(())
    }

    async fn down(&self, key: &str) -> Result<u64> {
        let pieces = self.get(&Place::parse(key)?).await?.into_stream();
        let lengths = pieces.map(|piece| piece.map(|piece| piece.len() as u64));
        Ok(lengths.try_fold(0, async |sum, len| Ok(sum + len)).await?)
    }
}

/// The libraries have no call for this.
async fn make(bucket: &Bucket) -> Result<()> {
    let request = http::Request::builder().method(Method::PUT).uri(format!("{}/{}", bucket.endpoint, bucket.name));
    let mut request = request.body(HttpRequestBody::empty())?;
    let credential = AwsCredential { key_id: bucket.key.clone(), secret_key: bucket.secret.clone(), token: None };
    AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
    let client = Connector::new(&HttpConfig::default(), |_| None)?.client();
    body(send(&client, request).await?).await?;
    Ok(())
}

pub(crate) fn markdown(machine: &Machine, rows: &[Row], quick: bool) -> String {
    let Machine { cores, system, date, load, .. } = machine;
    let (object_store, opendal) = (version("object_store"), version("opendal"));
    let mut text = format!(
        "<!-- Written by `cargo xtask bench --streams`. -->\n# Benchmarks: large values in a bucket\n\n\
         storage-s3 beside the client it stands on, object_store {object_store}, and OpenDAL {opendal}, measured side by side in one run \
         of `cargo xtask bench --streams` on {date}: {cores} cores, {system}, Ceph RGW on loopback, which keeps values in \
         memory, load average before the run {load:.1}.\n\n"
    );
    if quick {
        text.push_str("**A quick run**, with one sample of each.\n\n");
    }
    text.push_str(METHOD);
    text.push_str(&table(rows));
    text
}

const METHOD: &str = "\
Each sample is a process of its own, which connects, writes and reads a value of 1 MiB, and then writes or reads the large one; the \
libraries take turns. A cell is the median time with the shortest and the longest, the throughput of the median, and the most memory by \
which a process grew meanwhile. The length of what was read is checked.

The value is written from pieces of 64 KiB, each with memory of its own, and sent as a multipart upload of 5 MiB parts, 4 of \
them at once (`Storage::put` with its defaults; `WriteMultipart` with `wait_for_capacity(4)`; `writer_with().chunk().concurrent(4)`). It is read by one request. \
The server works on the same two cores. What differs: storage-s3 asks for the new entry after the upload, and OpenDAL does not hash what it sends \
for the signature, which the other two do.

";

pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| value | direction |");
    for one in rows.first().map_or(&[][..], |row| &row.measured) {
        let _ = write!(text, " {} |", one.library);
    }
    text.push_str(" samples |\n|---|---|---|---|---|---|\n");
    for Row { mib, direction, measured } in rows {
        let _ = write!(text, "| {mib} MiB | {direction} |");
        for Measured { samples, .. } in measured {
            let [low, median, high] = [0, samples.len() / 2, samples.len() - 1].map(|i| samples[i].0);
            let peak = samples.iter().map(|(_, kib)| kib >> 10).max().unwrap_or_default();
            let speed = *mib as f64 / (median / 1e9);
            let _ = write!(text, " {} ({} – {}), {speed:.0} MiB/s, {peak} MiB |", time(median), time(low), time(high));
        }
        let _ = writeln!(text, " {} |", measured.first().map_or(0, |one| one.samples.len()));
    }
    text
}
