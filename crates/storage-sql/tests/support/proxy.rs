//! A server behind a proxy that counts the statements which go through it, and can change them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Engine;

pub(crate) struct Proxy {
    engine: Engine,
    server: String,
    inner: storage_conformance::proxy::Proxy,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    statements: AtomicU64,
    /// What is replaced by what in each statement.
    replaced: Mutex<Option<(&'static str, &'static str)>>,
}

impl Deref for Proxy {
    type Target = storage_conformance::proxy::Proxy;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Proxy {
    pub(crate) fn new(engine: Engine) -> Self {
        let uri = engine.uri();
        let server = uri.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        let seen = Arc::<Seen>::default();
        let watched = seen.clone();
        let inner = storage_conformance::proxy::Proxy::watching(&server, move || {
            let (seen, mut messages) = (watched.clone(), Messages::new(engine));
            Box::new(move |bytes| {
                if let Some((text, other)) = *seen.replaced.lock().unwrap() {
                    let at = bytes.windows(text.len()).position(|bytes| bytes == text.as_bytes());
                    let at = at.map(|at| at..at + text.len());
                    at.into_iter().for_each(|at| bytes[at].copy_from_slice(other.as_bytes()));
                }
                seen.statements.fetch_add(messages.statements(bytes), Ordering::SeqCst);
            })
        });
        Self { engine, server, inner: inner.unwrap(), seen }
    }

    /// The server's address, by way of the proxy and without encryption, which nobody could count in.
    pub(crate) fn uri(&self, table: &str) -> String {
        let plain = if self.engine == Engine::Postgres { "disable" } else { "disabled" };
        format!("{}?sslmode={plain}&table={table}", self.engine.uri().replace(&self.server, &self.inner.address()))
    }

    /// How many statements have gone through.
    pub(crate) fn statements(&self) -> u64 {
        self.seen.statements.load(Ordering::SeqCst)
    }

    /// Replaces a text in what clients send by another of the same length.
    pub(crate) fn replace(&self, text: &'static str, other: &'static str) {
        assert_eq!(text.len(), other.len());
        *self.seen.replaced.lock().unwrap() = Some((text, other));
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
