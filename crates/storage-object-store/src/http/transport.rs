//! How long a request may take, by what it sends.

use std::time::Duration;

use http::Method;
use object_store::client::{HttpError, HttpRequest, HttpResponse, HttpService};
use rustls::ClientConfig;
use storage_core::{Error, ErrorKind, Result};

use super::{HttpConfig, answer};

/// The slowest that a request is sent, in bytes a second.
const SLOWEST: u64 = 64 << 10;
/// The least time for the end of an upload by parts, which may take Google several minutes:
/// <https://cloud.google.com/storage/docs/xml-api/post-object-complete>.
const COMPLETION: Duration = Duration::from_secs(5 * 60);

/// Two clients, since the one that limits the wait for an answer counts the time in which the request is sent, too.
#[derive(Clone)]
pub(super) struct Transport {
    quick: reqwest::Client,
    patient: reqwest::Client,
    timeout: Duration,
}

impl Transport {
    pub(super) fn new(config: &HttpConfig, tls: ClientConfig) -> Result<Self> {
        let build = |limit: fn(reqwest::ClientBuilder, Duration) -> reqwest::ClientBuilder| {
            let client = reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(config.connect_timeout)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                // Whatever another part of the program has switched on: values are the bytes that are stored.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate()
                .user_agent(concat!("storage/", env!("CARGO_PKG_VERSION")));
            let client = limit(client, config.timeout).build();
            client.map_err(|e| Error::new(ErrorKind::Other, "the HTTP client cannot be set up").with_source(e))
        };
        Ok(Self {
            quick: build(reqwest::ClientBuilder::read_timeout)?,
            patient: build(|client, _| client)?,
            timeout: config.timeout,
        })
    }

    pub(super) async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // `is_empty` of a payload says the contrary of its name.
        if request.body().content_length() == 0 {
            return self.quick.call(request).await;
        }
        let limit = limit(self.timeout, &request);
        let response = answer::in_time(limit, self.patient.call(request)).await?;
        // What answers a request that sends something is small.
        let (parts, body) = response.into_parts();
        let body = answer::whole(body, self.timeout).await?;
        Ok(HttpResponse::from_parts(parts, body.into()))
    }

    /// For a piece of an answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Until the answer begins.
fn limit(timeout: Duration, request: &HttpRequest) -> Duration {
    let sent = Duration::from_millis(request.body().content_length() as u64 * 1000 / SLOWEST);
    let query = request.uri().query().unwrap_or_default();
    let completes = request.method() == Method::POST && query.split('&').any(|pair| pair.starts_with("uploadId="));
    let limit = timeout.saturating_add(sent);
    if completes { limit.max(COMPLETION) } else { limit }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::{Connector, send};

    /// Sends so many bytes to a server that answers after so long, where each answer may take half a second.
    async fn sent(method: Method, path: &str, bytes: usize, answered_after: Duration) -> Option<ErrorKind> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let (mut got, mut piece) = (0, [0; 16 << 10]);
            let mut head = Vec::new();
            while got < bytes || !head.ends_with(b"\r\n\r\n") {
                let n = connection.read(&mut piece).unwrap();
                if n == 0 {
                    return;
                }
                for byte in &piece[..n] {
                    if head.ends_with(b"\r\n\r\n") { got += 1 } else { head.push(*byte) }
                }
            }
            std::thread::sleep(answered_after);
            // Whoever has asked may be gone.
            let _ = std::io::Write::write_all(&mut connection, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        });
        let config = HttpConfig { timeout: Duration::from_millis(500), ..HttpConfig::default() };
        let client = Connector::new(&config, |_| None).unwrap().client();
        let request = http::Request::builder().method(method).uri(format!("http://{address}{path}"));
        let request = request.body(vec![0; bytes].into()).unwrap();
        send(&client, request).await.err().map(|e| e.kind())
    }

    #[tokio::test]
    async fn what_sends_more_may_take_longer() {
        let late = Duration::from_millis(1500);
        let (none, little, much, completion) = tokio::join!(
            sent(Method::GET, "/k", 0, late),
            sent(Method::PUT, "/k", 100, late),
            sent(Method::PUT, "/k", 256 << 10, late),
            sent(Method::POST, "/k?uploadId=u", 100, late),
        );
        assert_eq!([none, little], [Some(ErrorKind::Timeout); 2]);
        assert_eq!([much, completion], [None; 2]);
        // Two seconds and a half.
        let never = sent(Method::PUT, "/k", 128 << 10, Duration::from_secs(4)).await;
        assert_eq!(never, Some(ErrorKind::Timeout));
    }
}
