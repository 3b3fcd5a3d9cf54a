//! One request over HTTP, as a program sends it that knows nothing of the store.

use storage_core::PresignedRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Failure, Outcome};

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head in lower case.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Whether the server did what it was asked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the server refused it.
    pub(crate) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(found, value)| (found == name).then(|| value.trim()))
    }
}

/// Sends a presigned request as it is.
pub(crate) async fn send(request: &PresignedRequest, body: &[u8]) -> Outcome<Answer> {
    send_as(request.method.as_str(), &request.url, &request.headers, body).await
}

/// Sends a request that may differ from the one presigned.
pub(crate) async fn send_as(method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> Outcome<Answer> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(Failure::NotRun("the suite sends presigned requests over plain HTTP only".into()));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if method == "PUT" {
        request += &format!("content-length: {}\r\n", body.len());
    }
    request += "\r\n";
    let exchange = async {
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(request.as_bytes()).await?;
        // A server that refuses the head may close before it has read the body.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map(|_| answer)
    };
    let answer = exchange.await.map_err(|e| format!("{method} of a presigned URL: expected an answer, saw {e}"))?;
    parse(&answer, method).ok_or_else(|| format!("{method} of a presigned URL: expected an answer of HTTP").into())
}

fn parse(answer: &[u8], method: &str) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head, body: answer[end + 4..].to_vec() };
    if status == 100 {
        return parse(&answer.body, method);
    }
    if method == "HEAD" {
        answer.body.clear();
    } else if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = joined(&answer.body)?;
    }
    Some(answer)
}

/// The chunks of a body without their lengths.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&chunks[..end]).ok()?;
        let len = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let chunk = chunks.get(end + 2..)?.get(..len)?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        chunks = chunks.get(end + 2 + len + 2..)?;
    }
}
