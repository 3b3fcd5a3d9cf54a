//! Calls that go through `ipfs-api-backend-hyper`, to a node by plain HTTP without credentials: those with a short answer that has no
//! trailer. What else there is, and why it goes another way, stands in the README.

use std::time::Duration;

use cid::Cid;
use ipfs_api_backend_hyper::{Error, IpfsApi, IpfsClient, TryFromUri};
use storage_core::Result;
use tokio::time::timeout;

use crate::{Config, error};

pub(crate) struct Plain {
    client: IpfsClient,
    limit: Duration,
}

impl Plain {
    /// `None` for a node that this client cannot speak to: it drops credentials and the path of an address, and has no TLS that is
    /// looked after.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let url = reqwest::Url::parse(&config.address).ok()?;
        if url.scheme() != "http" || url.path() != "/" || config.user.is_some() || config.token.is_some() {
            return None;
        }
        Some(Self { client: IpfsClient::from_str(&config.address).ok()?, limit: config.timeout })
    }

    async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
        timeout(limit, call).await.map_err(|_| error::timed_out())?.map_err(error::from_client)
    }

    pub(crate) async fn version(&self) -> Result<String> {
        Ok(Self::within(self.limit, self.client.version()).await?.version)
    }

    pub(crate) async fn configuration(&self) -> Result<serde_json::Value> {
        let text = Self::within(self.limit, self.client.config_show()).await?;
        serde_json::from_str(&text).map_err(|_| error::unreadable())
    }

    pub(crate) async fn pin_rm(&self, cid: &Cid, limit: Duration) -> Result<()> {
        Self::within(limit, self.client.pin_rm(&cid.to_string(), true)).await.map(drop)
    }
}
