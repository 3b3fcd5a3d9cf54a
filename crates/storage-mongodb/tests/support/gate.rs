//! A proxy that stops at one command of a client: before the server gets it, or when the server has answered and the client has not
//! heard of it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// The commands that count; the driver sends others, when it likes.
const COUNTED: [&str; 6] = ["find", "insert", "update", "delete", "aggregate", "commitTransaction"];

/// A field of the requests by which the driver watches a server.
const WATCHES: &[u8] = b"maxAwaitTimeMS";

/// On which side of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Side {
    Before,
    Behind,
}

#[derive(Debug, Default)]
struct State {
    seen: usize,
    /// The number of the command to stop at, from 1.
    stop: Option<(usize, Side)>,
    reached: bool,
    open: bool,
    cut: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// Clients connect to [`address`](Gate::address).
pub(crate) struct Gate {
    pub(crate) address: String,
    shared: Shared,
}

impl Gate {
    pub(crate) fn new(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Shared::default();
        let state = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
                let state = state.clone();
                thread::spawn(move || drop(serve(&client, &upstream, &state)));
            }
        });
        Self { address, shared }
    }

    /// Stops at the command of this number, counted from now.
    pub(crate) fn stop_at(&self, command: usize, side: Side) {
        *self.shared.0.lock().unwrap() = State { stop: Some((command, side)), ..State::default() };
    }

    /// Whether it has stopped, or does so as long as `goes_on` says so.
    pub(crate) fn stops(&self, mut goes_on: impl FnMut() -> bool) -> bool {
        let begun = Instant::now();
        loop {
            let state = self.shared.0.lock().unwrap();
            let (state, _) = self.shared.1.wait_timeout(state, Duration::from_millis(5)).unwrap();
            if state.reached {
                return true;
            }
            drop(state);
            if !goes_on() {
                return self.shared.0.lock().unwrap().reached;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the client neither ends nor reaches the command");
        }
    }

    /// Lets nothing through any more: what stands here is lost with its client.
    #[allow(dead_code, reason = "not every test kills its client")]
    pub(crate) fn cut(&self) {
        self.shared.0.lock().unwrap().cut = true;
        self.open();
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.shared.0.lock().unwrap().open = true;
        self.shared.1.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Passes requests and their answers on, which come in turn on one connection.
fn serve(mut client: &TcpStream, mut upstream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let ended = loop {
        let Ok(request) = message(&mut client) else { break Ok(()) };
        let counted = COUNTED.contains(&name(&request).as_str());
        let number = {
            let mut state = shared.0.lock().unwrap();
            state.seen += usize::from(counted);
            if counted { state.seen } else { 0 }
        };
        if !wait(shared, number, Side::Before) {
            break Ok(());
        }
        upstream.write_all(&request)?;
        // Where the driver watches the server, one request has many answers; nothing is counted there.
        if request.windows(WATCHES.len()).any(|window| window == WATCHES) {
            let (mut from, mut to) = (upstream.try_clone()?, client.try_clone()?);
            thread::spawn(move || io::copy(&mut from, &mut to));
            break io::copy(&mut client, &mut upstream).map(drop);
        }
        let answer = message(&mut upstream)?;
        if !wait(shared, number, Side::Behind) {
            break Ok(());
        }
        client.write_all(&answer)?;
    };
    let _ = (client.shutdown(Shutdown::Both), upstream.shutdown(Shutdown::Both));
    ended
}

/// Whether to go on.
fn wait(shared: &Shared, number: usize, side: Side) -> bool {
    let mut state = shared.0.lock().unwrap();
    while state.stop == Some((number, side)) && !state.open {
        state.reached = true;
        shared.1.notify_all();
        state = shared.1.wait(state).unwrap();
    }
    !state.cut
}

/// One message of the wire protocol, whose length comes first.
fn message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    let len = u32::from_le_bytes([message[0], message[1], message[2], message[3]]) as usize;
    message.resize(len.max(16), 0);
    from.read_exact(&mut message[4..])?;
    Ok(message)
}

/// The name of the command in a message, which is that of its document's first field.
fn name(message: &[u8]) -> String {
    // A header of 16 bytes, flags, the kind of the section; the document's length and the type of the field.
    let field = message.get(16 + 4 + 1 + 4 + 1..).unwrap_or_default();
    field.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}
