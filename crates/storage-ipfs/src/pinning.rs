//! A remote pinning service: <https://ipfs.github.io/pinning-services-api-spec/>.

use std::{fmt, time::Duration};

use ::http::{Method, StatusCode};
use cid::Cid;
use serde::{Deserialize, Serialize};
use storage_config::Secret;
use storage_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::{Config, http};

/// How far a pinning service is with some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RemotePin {
    /// It has taken the request.
    Queued,
    /// It is fetching the content.
    Pinning,
    /// It has all of the content, and keeps it.
    Pinned,
    /// It has given up.
    Failed,
}

/// The service, and how to speak to it.
pub(crate) struct Service {
    client: reqwest::Client,
    address: String,
    token: Option<Secret>,
    timeout: Duration,
    /// Whether content counts as pinned only when the service has it.
    waits: bool,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    requestid: String,
    status: RemotePin,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<Status>,
}

#[derive(Serialize)]
struct Pin<'a> {
    cid: String,
    name: &'a str,
}

impl Service {
    /// `None` without one.
    pub(crate) fn new(config: &Config, name: &str) -> Result<Option<Self>> {
        let Some(address) = &config.pinning_service else { return Ok(None) };
        Ok(Some(Self {
            client: http::client(config.timeout)?,
            address: address.trim_end_matches('/').to_owned(),
            token: config.pinning_token.clone(),
            timeout: config.timeout,
            waits: config.pinning_wait,
            name: name.to_owned(),
        }))
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Vec<u8>> {
        let mut request = self.client.request(method, format!("{}/{path}", self.address));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.header(::http::header::CONTENT_TYPE, "application/json").body(body);
        }
        let answer = async {
            let response = request.send().await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        };
        let answer = timeout(self.timeout, answer).await.map_err(|_| slow())?;
        let (status, body) = answer.map_err(|e| unavailable().with_source(e.without_url()))?;
        if status.is_success() { Ok(body.into()) } else { Err(refused(status)) }
    }

    async fn statuses(&self, cid: &Cid) -> Result<Vec<Status>> {
        let path = format!(
            "pins?cid={cid}&name={}&match=exact&status=queued,pinning,pinned,failed",
            crate::node::arg(&self.name)
        );
        let body = self.call(Method::GET, &path, None).await?;
        Ok(serde_json::from_slice::<Results>(&body).map_err(|_| unreadable())?.results)
    }

    /// How far it is with some content; `None` if it was never asked.
    pub(crate) async fn status(&self, cid: &Cid) -> Result<Option<RemotePin>> {
        // The newest request comes first.
        Ok(self.statuses(cid).await?.first().map(|newest| newest.status))
    }

    /// Asks for content to be pinned, unless that was done, and waits for it if so configured.
    pub(crate) async fn pin(&self, cid: &Cid) -> Result<()> {
        let begun = Instant::now();
        let earlier = self.statuses(cid).await?.into_iter().find(|status| status.status != RemotePin::Failed);
        let mut pin = match earlier {
            Some(earlier) => earlier,
            None => {
                let asked = serde_json::to_string(&Pin { cid: cid.to_string(), name: &self.name });
                let body = self.call(Method::POST, "pins", Some(asked.map_err(|_| unreadable())?)).await?;
                serde_json::from_slice(&body).map_err(|_| unreadable())?
            }
        };
        let mut pause = Duration::from_millis(50);
        loop {
            match pin.status {
                RemotePin::Pinned => return Ok(()),
                RemotePin::Failed => {
                    let what = "the pinning service could not fetch the content; check that it reaches the node";
                    return Err(Error::new(ErrorKind::Unavailable, what));
                }
                RemotePin::Queued | RemotePin::Pinning if !self.waits => return Ok(()),
                RemotePin::Queued | RemotePin::Pinning => {}
            }
            if begun.elapsed() + pause > self.timeout {
                return Err(slow());
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            let body = self.call(Method::GET, &format!("pins/{}", crate::node::arg(&pin.requestid)), None).await?;
            pin = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        }
    }

    /// Takes back what was asked for content.
    pub(crate) async fn unpin(&self, cid: &Cid) -> Result<()> {
        for status in self.statuses(cid).await? {
            let path = format!("pins/{}", crate::node::arg(&status.requestid));
            match self.call(Method::DELETE, &path, None).await {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                done => drop(done?),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

fn refused(status: StatusCode) -> Error {
    let (kind, message) = match status {
        StatusCode::UNAUTHORIZED => {
            (ErrorKind::Unauthenticated, "the pinning service does not accept the token; check `pinning_token`")
        }
        StatusCode::FORBIDDEN => {
            (ErrorKind::PermissionDenied, "the pinning service refuses this token; grant it the right to pin")
        }
        StatusCode::NOT_FOUND => {
            (ErrorKind::NotFound, "the pinning service does not know the pin; check `pinning_service`")
        }
        StatusCode::CONFLICT | StatusCode::INSUFFICIENT_STORAGE | StatusCode::PAYMENT_REQUIRED => {
            (ErrorKind::Unavailable, "the pinning service takes no more; look at the account")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            (ErrorKind::RateLimited, "the pinning service has too many requests; try again later")
        }
        status if status.is_server_error() => return unavailable(),
        _ => (ErrorKind::Other, "the pinning service refused the request; check `pinning_service`"),
    };
    Error::new(kind, message)
}

fn unavailable() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the pinning service cannot be reached or failed; check `pinning_service`, and try again",
    )
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Unavailable, "the answer of the pinning service is not readable; check `pinning_service`")
}

fn slow() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "the pinning service has not pinned the content in time; try again, or raise `timeout`",
    )
}
