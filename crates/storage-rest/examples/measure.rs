//! How fast server and client are beside bare ones, in one run: `cargo run --release -p storage-rest --example measure -- get|client|put|load`.
//!
//! Each pair is measured in turns, and the ratio is that of the medians. `put` and `load` need the program `storage-server`, built in release
//! mode, beside this one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring fails by panicking, and prints")]

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::Request, routing::get};
use futures_util::StreamExt;
use storage_core::Storage;
use storage_memory::Memory;
use storage_rest::Rest;
use storage_server::{Config, Server};
use tokio::{io::AsyncWriteExt, net::TcpListener};

const VALUE: usize = 4096;
const CLIENTS: usize = 8;
const ROUNDS: usize = 9;

#[tokio::main]
async fn main() {
    let what = env::args().nth(1).unwrap_or_default();
    match what.as_str() {
        "get" => reads().await,
        "client" => client().await,
        "put" => put().await,
        "load" => load(env::args().nth(2).map_or(300, |seconds| seconds.parse().unwrap())).await,
        _ => println!("say what: get, client, put or load [SECONDS]"),
    }
}

fn http() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().tcp_nodelay(true).build().unwrap()
}

async fn bare(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn ours(storage: Storage) -> String {
    let mut config = Config::default();
    config.listen = "127.0.0.1:0".into();
    let server = Server::new(storage, config).unwrap().bind().await.unwrap();
    let url = format!("http://{}", server.address().unwrap());
    tokio::spawn(server.run(std::future::pending()));
    url
}

/// Seconds of the processor that this process has had, in all its threads.
fn processor() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::fs::DirEntry| {
        // A thread may have ended.
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or_default()
    };
    tasks.map(|task| of(task.unwrap())).sum::<f64>() / 1e9
}

/// Operations a second of so many clients, and in a second of the processor, which others that use it change less.
async fn rate<F: Future<Output = ()> + Send>(
    time: Duration,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> (f64, f64) {
    let (work, count, over) = (Arc::new(work), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (begun, used) = (Instant::now(), processor());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (work, count, over) = (work.clone(), count.clone(), over.clone());
            async move {
                while !over.load(Ordering::Relaxed) {
                    work().await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
        .collect();
    let all = futures_util::future::join_all(clients);
    let end = async {
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(all, end);
    let count = count.load(Ordering::Relaxed) as f64;
    (count / begun.elapsed().as_secs_f64(), count / (processor() - used))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn medians(all: Vec<(f64, f64)>) -> (f64, f64) {
    let (rates, used) = all.into_iter().unzip();
    (median(rates), median(used))
}

fn fetch(
    client: &reqwest::Client,
    url: String,
) -> impl Fn() -> futures_util::future::BoxFuture<'static, ()> + Send + Sync + 'static {
    let client = client.clone();
    move || {
        let get = client.get(&url).send();
        Box::pin(async move { assert_eq!(get.await.unwrap().bytes().await.unwrap().len(), VALUE) })
    }
}

/// GET of 4 KiB over memory beside a bare handler that returns the same bytes.
async fn reads() {
    let value = Bytes::from(vec![7; VALUE]);
    let same = value.clone();
    let bare = bare(Router::new().route("/files/k", get(move || async move { same.clone() }))).await;
    let storage = Storage::new(Memory::new());
    storage.put("k", value).await.unwrap();
    let (ours, client) = (ours(storage).await, http());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(rate(Duration::from_secs(1), fetch(&client, format!("{bare}/files/k"))).await);
        b.push(rate(Duration::from_secs(1), fetch(&client, format!("{ours}/files/k"))).await);
    }
    let ((a, a_used), (b, b_used)) = (medians(a), medians(b));
    println!(
        "GET of 4 KiB: bare handler {a:.0}/s, storage-server {b:.0}/s, ratio {:.2}; by processor time {:.2}",
        b / a,
        b_used / a_used
    );
}

/// `get` of the client beside a bare request to the same server.
async fn client() {
    let storage = Storage::new(Memory::new());
    storage.put("k", vec![7; VALUE]).await.unwrap();
    let (url, client) = (ours(storage).await, http());
    let rest = Storage::new(Rest::open(&url).await.unwrap());
    let ours = move || {
        let rest = rest.clone();
        Box::pin(async move { assert_eq!(rest.get("k").await.unwrap().unwrap().len(), VALUE) })
            as futures_util::future::BoxFuture<'static, ()>
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(rate(Duration::from_secs(1), fetch(&client, format!("{url}/v1/objects/aw?entry=false"))).await);
        b.push(rate(Duration::from_secs(1), ours.clone()).await);
    }
    let ((a, a_used), (b, b_used)) = (medians(a), medians(b));
    println!(
        "get of 4 KiB: bare reqwest {a:.0}/s, storage-rest {b:.0}/s, time per get {:.2} of bare; of the processor {:.2}",
        a / b,
        a_used / b_used
    );
}

/// The program, which ends with this.
struct Program(Child, String);

impl Program {
    fn start(store: &str) -> Self {
        let name: PathBuf = env::current_exe().unwrap().parent().unwrap().join("../storage-server");
        let mut command = Command::new(name);
        // All slow clients of the load have one grant here.
        let settings = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(settings.path(), "max_requests = 4000").unwrap();
        command.args([store, "--listen", "127.0.0.1:0", "--log", "off", "--config"]).arg(settings.path());
        command.stdout(Stdio::piped());
        let mut child = command.spawn().expect("build it: cargo build --release -p storage-server");
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.split(' ').nth(2).unwrap().to_owned();
        Self(child, format!("http://{address}"))
    }

    /// A figure of `/proc/PID/status` in MiB.
    fn memory(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pieces(len: u64) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let piece = Bytes::from(vec![7; 256 << 10]);
    futures_util::stream::iter((0..len / piece.len() as u64).map(move |_| Ok(piece.clone())))
}

/// PUT of 1 GiB to files beside a bare handler that writes the same file with the same syncs; and the memory of the server.
async fn put() {
    let len = 1 << 30;
    let place = tempfile::tempdir_in(".").unwrap();
    let file = place.path().join("bare");
    let bare =
        bare(Router::new().route("/files/k", axum::routing::put(move |request: Request| write(file.clone(), request))))
            .await;
    let program = Program::start(&format!("fs:{}", place.path().join("store").display()));
    let client = http();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for (url, seconds) in [(&bare, &mut a), (&program.1, &mut b)] {
            let body = reqwest::Body::wrap(Sized(std::sync::Mutex::new(Box::pin(pieces(len))), len));
            let begun = Instant::now();
            let put = client.put(format!("{url}/files/k")).body(body).send().await.unwrap();
            assert!(put.status().is_success());
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    let (a, b) = (median(a), median(b));
    println!(
        "PUT of 1 GiB: bare handler {a:.2} s, storage-server over files {b:.2} s, rate {:.2} of bare; at most {:.0} MiB of memory",
        a / b,
        program.memory("VmHWM")
    );
}

async fn write(file: PathBuf, request: Request) {
    let staged = file.with_extension("staged");
    let mut out = tokio::fs::File::create(&staged).await.unwrap();
    let mut body = request.into_body().into_data_stream();
    while let Some(piece) = body.next().await {
        out.write_all(&piece.unwrap()).await.unwrap();
    }
    out.flush().await.unwrap();
    out.sync_all().await.unwrap();
    tokio::fs::rename(&staged, &file).await.unwrap();
    let directory: &Path = file.parent().unwrap();
    tokio::fs::File::open(directory).await.unwrap().sync_all().await.unwrap();
}

/// A body of a known length.
struct Sized<S>(std::sync::Mutex<std::pin::Pin<Box<S>>>, u64);

impl<S: futures_util::Stream<Item = Result<Bytes, std::io::Error>>> http_body::Body for Sized<S> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let piece = self.0.get_mut().unwrap().as_mut().poll_next(cx);
        piece.map(|piece| piece.map(|piece| piece.map(http_body::Frame::data)))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

/// 64 fast clients alone, then beside 1,000 slow ones: how long the slowest of a hundred requests takes, and what grows.
async fn load(seconds: u64) {
    let program = Program::start("memory:");
    let client = http();
    let put = client.put(format!("{}/files/k", program.1)).body(vec![7; VALUE]).send().await.unwrap();
    assert!(put.status().is_success());
    let url = format!("{}/files/k", program.1);
    let alone = fast(&client, &url, Duration::from_secs(10)).await;
    let (memory, descriptors) = (program.memory("VmRSS"), program.descriptors());
    let address = program.1.trim_start_matches("http://").to_owned();
    let over = Arc::new(AtomicBool::new(false));
    let slow: Vec<_> = (0..1000)
        .map(|n| {
            let (address, over) = (address.clone(), over.clone());
            tokio::spawn(async move {
                // A body that comes by a few bytes a second.
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = tokio::net::TcpStream::connect(&address).await else { continue };
                    let head =
                        format!("PUT /files/slow{n} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 100000\r\n\r\n");
                    let mut sent = stream.write_all(head.as_bytes()).await;
                    while sent.is_ok() && !over.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        sent = stream.write_all(b"slow").await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let beside = fast(&client, &url, Duration::from_secs(seconds)).await;
    let grown = program.memory("VmRSS") - memory;
    over.store(true, Ordering::Relaxed);
    futures_util::future::join_all(slow).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let left = program.descriptors().saturating_sub(descriptors);
    println!(
        "{seconds} s: p99 of 64 fast clients {:.1} ms alone, {:.1} ms beside 1,000 slow ones ({:.2}×); memory grew by {grown:.0} MiB; \
         {left} descriptors more afterwards",
        alone * 1e3,
        beside * 1e3,
        beside / alone
    );
    if beside > 2.0 * alone || grown > 64.0 || left > 0 {
        println!("that is more than it may be: 2×, 64 MiB, no descriptor");
        std::process::exit(1);
    }
}

/// The time within which 99 of 100 requests of 64 clients are answered.
async fn fast(client: &reqwest::Client, url: &str, time: Duration) -> f64 {
    let until = Instant::now() + time;
    let clients = (0..64).map(|_| {
        let (client, url) = (client.clone(), url.to_owned());
        tokio::spawn(async move {
            let mut all = Vec::new();
            while Instant::now() < until {
                let begun = Instant::now();
                let answer = client.get(&url).send().await.unwrap();
                assert!(answer.status().is_success(), "{}", answer.status());
                answer.bytes().await.unwrap();
                all.push(begun.elapsed().as_secs_f64());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            all
        })
    });
    let all = futures_util::future::join_all(clients.collect::<Vec<_>>()).await;
    let mut all: Vec<f64> = all.into_iter().flat_map(|all| all.unwrap()).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() * 99 / 100]
}
