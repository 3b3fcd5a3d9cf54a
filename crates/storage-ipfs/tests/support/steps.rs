//! A process that dies, as by `kill -9`, at one of its steps: before or behind a request to the node or a statement of the index.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    env,
    process::{Command, Stdio},
    sync::atomic::{AtomicI64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt},
    util::SubscriberInitExt,
};

/// How many steps are left, once they are counted.
static LEFT: AtomicI64 = AtomicI64::new(-1);

/// From here on, so many steps, and no more.
pub(crate) fn count(steps: i64) {
    LEFT.store(steps, Ordering::SeqCst);
}

fn step() {
    if LEFT.load(Ordering::SeqCst) > 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
        // It takes a moment to arrive.
        loop {
            std::thread::park();
        }
    }
}

struct Statements;

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "storage_sql::statement" {
            step();
        }
    }
}

/// Counts the statements of the index, and what goes through the address that it returns to the node at this host.
pub(crate) async fn watch(host: String) -> String {
    tracing_subscriber::registry().with(Statements).init();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // A connection that ends is its client's affair.
            tokio::spawn(serve(client, host.clone()));
        }
    });
    address
}

/// One request on each connection.
async fn serve(mut client: TcpStream, host: String) -> std::io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    step();
    let mut server = TcpStream::connect(host).await?;
    server.write_all(&[&head[..end], b"\r\nConnection: close", &head[end..]].concat()).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answered = async {
        let mut answer = Vec::new();
        from_server.read_to_end(&mut answer).await?;
        // The node has done it, and nobody knows yet.
        step();
        to_client.write_all(&answer).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        answered = answered => answered,
        Err(e) = copy(&mut from_client, &mut to_server) => Err(e),
    }
}

/// What such a process is asked to do, if this is one.
pub(crate) fn asked() -> Option<Vec<String>> {
    let asked = env::var("STORAGE_TEST_STEPS").ok()?;
    Some(asked.split('\n').map(str::to_owned).collect())
}

/// Runs the test `writer` of this program with something to do. Whether it has died, and what it has said.
pub(crate) fn run(asked: &[&str]) -> (bool, String) {
    let mut writer = Command::new(env::current_exe().unwrap());
    writer.args(["--exact", "writer", "--nocapture", "--quiet"]).env("STORAGE_TEST_STEPS", asked.join("\n"));
    let output = writer.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    let died = output.status.code().is_none();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(died || output.status.success(), "{said}");
    (died, said)
}
