//! What may stand before a node or a gateway: it counts requests, breaks some off, and lies about blocks.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// How it lies about what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    FlippedByte,
    OtherBlock,
    /// The connection ends in the middle.
    CutShort,
    /// Half of it, as if that were all.
    Half,
    /// Half of it, and behind its end that something failed.
    OnlyInTheTrailer,
    Nothing,
}

impl Lie {
    pub(crate) const ALL: [Self; 6] =
        [Self::FlippedByte, Self::OtherBlock, Self::CutShort, Self::Half, Self::OnlyInTheTrailer, Self::Nothing];
}

#[derive(Default)]
struct State {
    lie: Option<Lie>,
    /// A request with this in its path is answered with that, in place of the node's answer.
    instead: Option<(String, String)>,
    requests: Vec<String>,
    /// The request of this number is broken off.
    breaks: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct Proxy {
    host: String,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Before the server with this host and port.
    pub(crate) async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { host: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let state = proxy.state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that ends is its client's affair.
                tokio::spawn(serve(client, upstream.clone(), state.clone()));
            }
        });
        proxy
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.host)
    }

    pub(crate) fn lie(&self, lie: Option<Lie>) {
        self.state.lock().unwrap().lie = lie;
    }

    pub(crate) fn answer(&self, path: &str, body: &str) {
        self.state.lock().unwrap().instead = Some((path.into(), body.into()));
    }

    pub(crate) fn honest(&self) {
        let mut state = self.state.lock().unwrap();
        (state.lie, state.instead, state.breaks) = (None, None, None);
    }

    /// Forgets the requests so far, and breaks off the one of this number from now on.
    pub(crate) fn break_off(&self, number: usize) {
        let mut state = self.state.lock().unwrap();
        state.requests.clear();
        state.breaks = Some(number);
    }

    /// The commands that were asked for since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

async fn serve(mut client: TcpStream, upstream: String, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&head[..end]).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    // A time without a unit is none to the node, which then does nothing and says that all is well.
    let unit = |time: &str| time.strip_suffix("ms").is_some_and(|digits| digits.parse::<u64>().is_ok());
    assert!(path.split(['?', '&']).filter_map(|pair| pair.strip_prefix("timeout=")).all(unit), "{path}");
    let command = path.split('?').next().unwrap_or_default().trim_start_matches("/api/v0/").to_owned();
    let (lie, instead, broken) = {
        let mut state = state.lock().unwrap();
        let number = state.requests.len();
        state.requests.push(command.clone());
        let instead = state.instead.clone().filter(|(within, _)| path.contains(within.as_str()));
        (state.lie, instead.map(|(_, body)| body), state.breaks == Some(number))
    };
    if broken {
        return Ok(());
    }
    if let Some(body) = instead {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        client.write_all(answer.as_bytes()).await?;
        // What is still being sent is read, or the answer would be lost.
        let mut rest = vec![0; 1 << 16];
        while client.read(&mut rest).await? > 0 {}
        return Ok(());
    }
    let mut server = TcpStream::connect(upstream).await?;
    // Each request comes on a connection of its own.
    let mut sent = text.replace("\r\nconnection: keep-alive", "").into_bytes();
    sent.extend(b"\r\nConnection: close");
    sent.extend(&head[end..]);
    server.write_all(&sent).await?;
    let about_blocks = command == "block/get" || command == "cat" || path.contains("format=raw");
    let Some(lie) = lie.filter(|_| about_blocks) else {
        return copy_bidirectional(&mut client, &mut server).await.map(drop);
    };
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let value = body_of(&answer);
    let half = value[..value.len() / 2].to_vec();
    let whole = |body: Vec<u8>, len: usize| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n");
        [head.into_bytes(), body].concat()
    };
    let lied = match lie {
        Lie::FlippedByte => {
            let mut value = value;
            let middle = value.len() / 2;
            value[middle] ^= 1;
            let len = value.len();
            whole(value, len)
        }
        Lie::OtherBlock => whole(b"another block".to_vec(), 13),
        Lie::CutShort => whole(half, value.len()),
        Lie::Half => {
            let len = half.len();
            whole(half, len)
        }
        Lie::Nothing => whole(Vec::new(), 0),
        Lie::OnlyInTheTrailer => {
            let head = "HTTP/1.1 200 OK\r\ntrailer: X-Stream-Error\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = if half.is_empty() {
                Vec::new()
            } else {
                [format!("{:x}\r\n", half.len()).as_bytes(), &half, b"\r\n"].concat()
            };
            [head.as_bytes(), &chunk, b"0\r\nX-Stream-Error: the disk is gone\r\n\r\n"].concat()
        }
    };
    client.write_all(&lied).await?;
    client.shutdown().await
}

/// The body of a whole answer, chunked or not.
fn body_of(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let mut rest = &answer[end + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if len == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + len]);
        rest = &rest[line + 2 + len + 2..];
    }
}
