//! What this crate costs beside the node's own `add` and `cat` over RPC, on the node that `STORAGE_TEST_KUBO` names:
//! `cargo run --release -p storage-ipfs --example speed`. The two take turns, and medians are compared.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::{env, time::Instant};

use futures_util::{StreamExt, stream};
use storage_core::Storage;
use storage_ipfs::{Config, Ipfs};
use storage_sql::Sql;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const ADD: &str = "cid-version=1&raw-leaves=true&chunker=size-1048576&max-file-links=1024&pin=true&pin-name=speed";

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

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn show(what: &str, ours: Vec<f64>, nodes: Vec<f64>) {
    let (ours, nodes) = (median(ours), median(nodes));
    println!("{what}: {:.2} ms beside {:.2} ms of the node, {:.2} times", ours * 1e3, nodes * 1e3, ours / nodes);
}

#[tokio::main]
async fn main() -> Result<()> {
    let address = env::var("STORAGE_TEST_KUBO")?;
    let directory = tempfile::tempdir()?;
    let index = Storage::new(Sql::open(&format!("sqlite:{}/index.db", directory.path().display())).await?);
    let mut config = Config::new(&address)?;
    config.shared_node = true;
    let storage = Storage::new(Ipfs::connect(config, index).await?);
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into());
    let tls = tls.with_safe_default_protocol_versions()?.with_root_certificates(rustls::RootCertStore::empty());
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.with_no_client_auth()).tcp_nodelay(true);
    let node = Node { client: client.build()?, address };

    for (len, times) in [(4 << 10, 200), (64 << 20, 5)] {
        let (mut puts, mut adds, mut gets, mut cats) = (vec![], vec![], vec![], vec![]);
        for n in 0..times {
            let (one, other) = (random(len), random(len));
            let begun = Instant::now();
            storage.put(format!("{len}/{n}"), one).await?;
            puts.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let cid = node.add(other).await?;
            adds.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            storage.get(format!("{len}/{n}")).await?;
            gets.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            node.cat(&cid).await?;
            cats.push(begun.elapsed().as_secs_f64());
        }
        show(&format!("put of {len} bytes"), puts, adds);
        show(&format!("get of {len} bytes"), gets, cats);
    }
    let (mut puts, mut adds) = (vec![], vec![]);
    for round in 0..5 {
        let begun = Instant::now();
        let put = |n: usize| storage.put(format!("16/{round}/{n}"), random(4 << 10));
        stream::iter((0..320).map(put)).buffer_unordered(16).for_each(|put| async move { drop(put) }).await;
        puts.push(begun.elapsed().as_secs_f64() / 320.0);
        let begun = Instant::now();
        let add = |_| node.add(random(4 << 10));
        stream::iter((0..320).map(add)).buffer_unordered(16).for_each(|add| async move { drop(add) }).await;
        adds.push(begun.elapsed().as_secs_f64() / 320.0);
    }
    show("put of 4096 bytes, 16 in flight", puts, adds);
    Ok(())
}
