//! What this crate costs beside the node's own `add` and `cat` over RPC, on the node that `STORAGE_TEST_KUBO` names:
//! `cargo run --release -p storage-ipfs --example speed`. They take turns. `cargo xtask bench --ipfs` writes what it prints to
//! docs/benchmarks-ipfs.md.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{env, path::Path, time::Instant};

use futures_util::{StreamExt, stream};
use storage_core::{BatchOptions, Body, Key, Metadata, PutOptions, Storage};
use storage_ipfs::{Config, Ipfs};
use storage_sql::Sql;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const ADD: &str = "cid-version=1&raw-leaves=true&chunker=size-1048576&max-file-links=1024&pin=true&pin-name=speed";

const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 20;
/// How many operations are one sample of 16 in flight.
const TOGETHER: usize = 320;

struct Node {
    client: reqwest::Client,
    address: String,
}

impl Node {
    async fn add(&self, value: Vec<u8>) -> Result<String> {
        let head = b"--x0x1x2x3x4x5x6x7\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
        let body = [head.as_slice(), &value, b"\r\n--x0x1x2x3x4x5x6x7--\r\n"].concat();
        let request = self.client.post(format!("{}/api/v0/add?{ADD}", self.address));
        let request = request.header("content-type", "multipart/form-data; boundary=x0x1x2x3x4x5x6x7").body(body);
        let answer: serde_json::Value = serde_json::from_slice(&request.send().await?.bytes().await?)?;
        Ok(answer["Hash"].as_str().unwrap_or_default().to_owned())
    }

    async fn cat(&self, cid: &str) -> Result<usize> {
        let request = self.client.post(format!("{}/api/v0/cat?arg={cid}&offline=true", self.address));
        Ok(request.send().await?.bytes().await?.len())
    }
}

fn random(len: usize) -> Vec<u8> {
    let mut value = vec![0; len];
    fastrand::fill(&mut value);
    value
}

/// Seconds that this takes.
async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<f64> {
    let begun = Instant::now();
    work.await?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Seconds of each of several that run at once, together divided by their number.
async fn together<F: Future<Output = Result<()>>>(work: impl Fn(usize) -> F) -> Result<f64> {
    let begun = Instant::now();
    let done: Vec<Result<()>> = stream::iter((0..TOGETHER).map(work)).buffer_unordered(16).collect().await;
    done.into_iter().collect::<Result<()>>()?;
    Ok(begun.elapsed().as_secs_f64() / TOGETHER as f64)
}

/// The times of a row: by their column, all samples.
struct Row(&'static str, Vec<Vec<f64>>);

impl Row {
    fn new(what: &'static str, columns: usize) -> Self {
        Self(what, vec![Vec::new(); columns])
    }

    fn add(&mut self, times: &[f64]) {
        self.1.iter_mut().zip(times).for_each(|(column, time)| column.push(*time));
    }

    /// The medians, with the middle nine tenths, and how often as long as the last each takes.
    fn show(mut self) {
        let mut cells = Vec::new();
        let mut medians = Vec::new();
        for times in &mut self.1 {
            times.sort_by(f64::total_cmp);
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] * 1e3;
            medians.push(at(0.5));
            cells.push(format!("{:.2} ms ({:.2} – {:.2})", at(0.5), at(0.05), at(0.95)));
        }
        let node = medians.last().copied().unwrap_or(f64::NAN);
        let times: Vec<String> = medians.iter().map(|median| format!("{:.2}", median / node)).collect();
        let times = &times[..times.len().saturating_sub(1)];
        println!("| {} | {} | {} |", self.0, cells.join(" | "), times.join(", "));
    }
}

async fn open(address: &str, dir: &Path, durability: &str) -> Result<Storage> {
    let index = format!("sqlite:{}/{durability}.db?durability={durability}", dir.display());
    let mut config = Config::new(address)?;
    config.shared_node = true;
    Ok(Storage::new(Ipfs::connect(config, Storage::new(Sql::open(&index).await?)).await?))
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = env::var("STORAGE_TEST_KUBO")?;
    let quick = env::args().any(|argument| argument == "--quick");
    let rounds = |many: usize| if quick { many.div_ceil(5) } else { many };
    let directory = tempfile::tempdir()?;
    let storage = open(&address, directory.path(), "full").await?;
    let relaxed = open(&address, directory.path(), "relaxed").await?;
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let tls = tls.with_safe_default_protocol_versions()?.with_root_certificates(rustls::RootCertStore::empty());
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.with_no_client_auth()).tcp_nodelay(true);
    let node = Node { client: client.build()?, address: address.clone() };

    println!(
        "| operation | in flight | storage-ipfs | with `durability=relaxed` of the index | the node's own | times |"
    );
    println!("|---|---|---|---|---|---|");
    let mut put = Row::new("put 4 KiB | 1", 3);
    let mut cids = Vec::new();
    for n in 0..rounds(300) {
        let key = format!("small/{n}");
        let (one, two, three) = (random(SMALL), random(SMALL), random(SMALL));
        let ours = timed(async { Ok(storage.put(&*key, one).await?) }).await?;
        let soft = timed(async { Ok(relaxed.put(&*key, two).await?) }).await?;
        let begun = Instant::now();
        cids.push(node.add(three).await?);
        let theirs = begun.elapsed().as_secs_f64();
        put.add(&[ours, soft, theirs]);
    }
    put.show();
    let mut put = Row::new("put 4 KiB | 16", 3);
    for round in 0..rounds(7) {
        let key = |n: usize| format!("16/{round}/{n}");
        let ours = together(async |n| Ok(storage.put(key(n), random(SMALL)).await.map(drop)?)).await?;
        let soft = together(async |n| Ok(relaxed.put(key(n), random(SMALL)).await.map(drop)?)).await?;
        put.add(&[ours, soft, together(async |_| node.add(random(SMALL)).await.map(drop)).await?]);
    }
    put.show();
    // A store that has not seen the keys, and one that has.
    let cold = open(&address, directory.path(), "full").await?;
    let (mut first, mut again) =
        (Row::new("get 4 KiB, not seen lately | 1", 3), Row::new("get 4 KiB, seen lately | 1", 3));
    let soft = open(&address, directory.path(), "relaxed").await?;
    for (n, cid) in cids.iter().enumerate() {
        let key = format!("small/{n}");
        let get = |from: &Storage| {
            let (from, key) = (from.clone(), key.clone());
            async move { Ok(from.get(&*key).await.map(drop)?) }
        };
        first.add(&[timed(get(&cold)).await?, timed(get(&soft)).await?, timed(node.cat(cid)).await?]);
        again.add(&[timed(get(&storage)).await?, timed(get(&relaxed)).await?, timed(node.cat(cid)).await?]);
    }
    first.show();
    again.show();
    let mut get = Row::new("get 4 KiB, seen lately | 16", 3);
    for round in 0..rounds(7) {
        let key = |n: usize| format!("16/{round}/{n}");
        let ours = together(async |n| Ok(storage.get(key(n)).await.map(drop)?)).await?;
        let soft = together(async |n| Ok(relaxed.get(key(n)).await.map(drop)?)).await?;
        get.add(&[ours, soft, together(async |n| node.cat(&cids[n % cids.len()]).await.map(drop)).await?]);
    }
    get.show();
    let (mut put, mut get) = (Row::new("put 64 MiB | 1", 3), Row::new("get 64 MiB | 1", 3));
    for n in 0..rounds(7) {
        let key = format!("large/{n}");
        let (one, two, three) = (random(LARGE), random(LARGE), random(LARGE));
        let ours = timed(async { Ok(storage.put(&*key, one).await?) }).await?;
        let soft = timed(async { Ok(relaxed.put(&*key, two).await?) }).await?;
        let begun = Instant::now();
        let cid = node.add(three).await?;
        put.add(&[ours, soft, begun.elapsed().as_secs_f64()]);
        let ours = timed(async { Ok(storage.get(&*key).await.map(drop)?) }).await?;
        let soft = timed(async { Ok(relaxed.get(&*key).await.map(drop)?) }).await?;
        get.add(&[ours, soft, timed(node.cat(&cid)).await?]);
    }
    put.show();
    get.show();

    // What a put and a get of 4 KiB do beside the one request to the node, each alone.
    println!("\n| part | time |\n|---|---|");
    for durability in ["full", "relaxed"] {
        let uri = format!("sqlite:{}/parts-{durability}.db?durability={durability}", directory.path().display());
        let index = Storage::new(Sql::open(&uri).await?);
        let (mut read, mut write, mut stat) = (Vec::new(), Vec::new(), Vec::new());
        for (n, cid) in cids.iter().enumerate() {
            let [record, count] = [format!("k/small/{n}"), format!("c/{cid}")];
            read.push(timed(async { Ok(index.get_batch([&*record, &*count]).await?) }).await?);
            let metadata = Metadata::new().field("$cid", &**cid).field("$size", SMALL as i64);
            let put = PutOptions::new().if_absent();
            let both = vec![
                (Key::parse(&record)?, Body::default(), put.clone().metadata(metadata)),
                (Key::parse(&count)?, format!(r#"{{"keys":1,"pin":"{cid}"}}"#).into(), put),
            ];
            let options = BatchOptions::new().atomic(true);
            write.push(timed(async { Ok(index.backend().put_batch(both, options).await?) }).await?);
            stat.push(timed(async { Ok(index.stat(&*record).await?) }).await?);
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2] * 1e3
        };
        let (read, write, stat) = (median(read), median(write), median(stat));
        println!("| put: to read what the index has of key and content | {read:.3} ms |");
        println!("| put: to write record and count, `durability={durability}` | {write:.3} ms |");
        println!("| get: to read the record | {stat:.3} ms |");
    }
    Ok(())
}
