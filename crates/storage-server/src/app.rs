//! What all requests share.

use std::sync::{Arc, OnceLock};

use storage_core::{Result, Storage};
use storage_rest_wire::{AccessJson, InfoJson, PROTOCOL, ServerJson};
use tokio_util::task::TaskTracker;

use crate::{
    Config,
    answer::Failure,
    config::Caching,
    measure::Measured,
    tokens::{Grant, Tokens},
    transactions::Transactions,
    uploads::Uploads,
    writes::Writes,
};

pub(crate) struct App {
    pub(crate) storage: Storage,
    pub(crate) config: Config,
    pub(crate) door: Door,
    pub(crate) caching: Caching,
    pub(crate) writes: Writes,
    pub(crate) transactions: Arc<Transactions>,
    /// Where there is a store for their parts.
    pub(crate) uploads: Option<Arc<Uploads>>,
    /// Writes go on when their client has gone, and the server waits for them before it ends.
    pub(crate) tasks: TaskTracker,
    /// The port that clients name.
    pub(crate) port: OnceLock<u16>,
    pub(crate) measured: Measured,
    /// Shows what was measured.
    pub(crate) metrics: Option<Box<dyn Fn() -> String + Send + Sync>>,
}

/// Who is let in.
pub(crate) enum Door {
    /// Everybody on this machine.
    Local(Arc<Grant>),
    /// Whoever has a token.
    Tokens(Arc<Tokens>),
}

impl App {
    pub(crate) fn new(storage: Storage, config: Config) -> Result<Self> {
        config.check()?;
        let door = match &config.tokens {
            Some(path) => Door::Tokens(Arc::new(Tokens::load(path, config.max_requests)?)),
            None => Door::Local(Arc::new(Grant::local(config.allow_clear, config.max_requests))),
        };
        Ok(Self {
            storage,
            caching: Caching::new(&config),
            config,
            door,
            writes: Writes::new(),
            transactions: Arc::default(),
            uploads: None,
            tasks: TaskTracker::new(),
            port: OnceLock::new(),
            measured: Measured::default(),
            metrics: None,
        })
    }

    /// What the header `Authorization` allows.
    pub(crate) fn grant(&self, authorization: Option<&str>) -> Result<Arc<Grant>, Failure> {
        match &self.door {
            Door::Local(grant) => Ok(grant.clone()),
            Door::Tokens(tokens) => tokens.grant(authorization),
        }
    }

    /// Whether answers are meant for one client only.
    pub(crate) fn is_private(&self) -> bool {
        matches!(self.door, Door::Tokens(_))
    }

    /// The most bytes of a value.
    pub(crate) fn max_value(&self) -> u64 {
        let limit = self.storage.info().limits.value;
        self.config.max_value.map_or(limit, |max| max.min(limit))
    }

    pub(crate) fn describe(&self, access: &AccessJson) -> ServerJson {
        let mut store = InfoJson::from(self.storage.info());
        store.limits.value = self.max_value();
        // Metadata travels in a header, where it takes four thirds of its size.
        store.limits.metadata = store.limits.metadata.min(self.config.max_header / 2);
        ServerJson {
            protocol: PROTOCOL,
            boot: self.writes.boot().to_owned(),
            uptime_ms: self.writes.uptime_ms(),
            store,
            access: access.clone(),
        }
    }
}
