//! A server behind a proxy, which counts the statements that go through it, cuts connections, and can be down.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::Engine;

#[derive(Clone)]
pub(crate) struct Proxy(Arc<Inner>);

struct Inner {
    engine: Engine,
    server: String,
    address: SocketAddr,
    statements: AtomicU64,
    down: AtomicBool,
    cut: watch::Sender<u64>,
    /// How many more bytes of answers go through, if not all.
    held: watch::Sender<Option<usize>>,
    /// What is replaced by what in each statement.
    replaced: Mutex<Option<(&'static str, &'static str)>>,
    ports: Mutex<Vec<u16>>,
}

impl Proxy {
    pub(crate) async fn new(engine: Engine) -> Self {
        let uri = engine.uri();
        let place = uri.rsplit_once('@').unwrap().1;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self(Arc::new(Inner {
            engine,
            server: place.split('/').next().unwrap().to_owned(),
            address: listener.local_addr().unwrap(),
            statements: AtomicU64::new(0),
            down: AtomicBool::new(false),
            cut: watch::Sender::new(0),
            held: watch::Sender::new(None),
            replaced: Mutex::default(),
            ports: Mutex::default(),
        }));
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !accepting.0.down.load(Ordering::SeqCst) {
                    tokio::spawn(accepting.clone().serve(client));
                }
            }
        });
        proxy
    }

    /// The server's address, by way of the proxy and without encryption, which nobody could count in.
    pub(crate) fn uri(&self, table: &str) -> String {
        let uri = self.0.engine.uri();
        let plain = if self.0.engine == Engine::Postgres { "disable" } else { "disabled" };
        format!("{}?sslmode={plain}&table={table}", uri.replace(&self.0.server, &self.0.address.to_string()))
    }

    /// How many statements have gone through.
    pub(crate) fn statements(&self) -> u64 {
        self.0.statements.load(Ordering::SeqCst)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.0.cut.send_modify(|n| *n += 1);
    }

    /// Replaces a text in what clients send by another of the same length.
    pub(crate) fn replace(&self, text: &'static str, other: &'static str) {
        assert_eq!(text.len(), other.len());
        *self.0.replaced.lock().unwrap() = Some((text, other));
    }

    /// Lets so many more bytes of the answers through, and keeps back the others until [`release`](Self::release).
    pub(crate) fn hold(&self, behind: usize) {
        self.0.held.send_replace(Some(behind));
    }

    /// Lets through what was kept back, and all that follows.
    pub(crate) fn release(&self) {
        self.0.held.send_replace(None);
    }

    /// Whether new connections are closed at once.
    pub(crate) fn down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// The ports by which the server knows the connections.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.0.ports.lock().unwrap().clone()
    }

    async fn serve(self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.0.server).await else {
            return;
        };
        // Both ends wait for each other's answer, so nothing may wait for more to send.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let port = server.local_addr().unwrap().port();
        self.0.ports.lock().unwrap().push(port);
        let mut cut = self.0.cut.subscribe();
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let inner = self.0.clone();
        let forth = async move {
            let (mut buffer, mut seen) = (vec![0; 64 << 10], Messages::new(inner.engine));
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                let replaced = *inner.replaced.lock().unwrap();
                if let Some((text, other)) = replaced {
                    let at = buffer[..read].windows(text.len()).position(|bytes| bytes == text.as_bytes());
                    let at = at.map(|at| at..at + text.len());
                    at.into_iter().for_each(|at| buffer[at].copy_from_slice(other.as_bytes()));
                }
                inner.statements.fetch_add(seen.statements(&buffer[..read]), Ordering::SeqCst);
                if to_server.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        };
        let inner = self.0.clone();
        let back = async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                let mut first = read;
                inner.held.send_if_modified(|held| {
                    first = held.map_or(read, |left| left.min(read));
                    *held = held.map(|left| left - first);
                    false
                });
                let open = to_client.write_all(&buffer[..first]).await.is_ok()
                    && (first == read || inner.held.subscribe().wait_for(Option::is_none).await.is_ok())
                    && to_client.write_all(&buffer[first..read]).await.is_ok();
                if !open {
                    break;
                }
            }
        };
        tokio::select! {
            () = forth => {}
            () = back => {}
            _ = cut.changed() => {}
        }
        self.0.ports.lock().unwrap().retain(|other| *other != port);
    }
}

/// What a client sends, cut into messages.
struct Messages {
    engine: Engine,
    rest: Vec<u8>,
    first: bool,
}

impl Messages {
    fn new(engine: Engine) -> Self {
        Self { engine, rest: Vec::new(), first: true }
    }

    /// How many statements begin with these bytes to run.
    fn statements(&mut self, bytes: &[u8]) -> u64 {
        self.rest.extend_from_slice(bytes);
        let mut count = 0;
        loop {
            let rest = &self.rest;
            // PostgreSQL: a letter and a length that counts itself; the first message has no letter. `Q` is a simple query,
            // `E` runs a prepared one. MariaDB: a length and a number, which is 0 when a command begins.
            let len = match self.engine {
                Engine::Postgres => {
                    let at = usize::from(!self.first);
                    let Some(len) = rest.get(at..at + 4) else {
                        return count;
                    };
                    at + u32::from_be_bytes(len.try_into().unwrap()) as usize
                }
                _ => match rest.get(..4) {
                    Some(header) => 4 + u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize,
                    None => return count,
                },
            };
            if rest.len() < len {
                return count;
            }
            count += u64::from(match self.engine {
                Engine::Postgres => !self.first && matches!(rest[0], b'Q' | b'E'),
                _ => rest[3] == 0 && matches!(rest.get(4), Some(0x03 | 0x17)),
            });
            self.first = false;
            self.rest.drain(..len);
        }
    }
}
