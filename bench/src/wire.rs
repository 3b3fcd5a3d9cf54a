//! Counts the commands between a client and a MongoDB server.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::Result;

/// How many commands have passed, but for what the driver says on its own.
#[derive(Clone, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    /// Those since the last time.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// The address of a proxy before the server.
pub(crate) fn counting(server: &str) -> Result<(String, Count)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, count, server) = (listener.local_addr()?.to_string(), Count::default(), server.to_owned());
    let seen = count.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(upstream) = TcpStream::connect(&server) else { return };
            let (Ok(mut back), Ok(mut to)) = (upstream.try_clone(), client.try_clone()) else { return };
            thread::spawn(move || std::io::copy(&mut back, &mut to));
            let seen = seen.clone();
            thread::spawn(move || forward(client, upstream, &seen));
        }
    });
    Ok((address, count))
}

/// Passes whole messages on: <https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>.
fn forward(mut client: TcpStream, mut upstream: TcpStream, seen: &Count) -> Option<()> {
    const OWN: [&[u8]; 7] =
        [b"hello", b"isMaster", b"ismaster", b"ping", b"endSessions", b"createIndexes", b"listIndexes"];
    loop {
        let mut message = vec![0; 16];
        client.read_exact(&mut message).ok()?;
        message.resize(u32::from_le_bytes(message[..4].try_into().ok()?) as usize, 0);
        client.read_exact(&mut message[16..]).ok()?;
        // Behind the header flags, the kind of section, the length of the document, the type of its first element.
        let name = message.get(26..).and_then(|rest| rest.split(|byte| *byte == 0).next())?;
        if message[12..16] == 2013_u32.to_le_bytes() && !OWN.contains(&name) {
            seen.0.fetch_add(1, Ordering::Relaxed);
        }
        upstream.write_all(&message).ok()?;
    }
}
