//! The conformance suite: the client over the server over stores of three kinds, and over a server of somebody else.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{sync::Arc, time::Duration};

use storage_config::{DataKey, Secret};
use storage_conformance::{Namespace, Target};
use storage_core::{Capabilities, Key, Result, Storage, StorageBackend};
use storage_fs::Fs;
use storage_layer_encrypt::{EncryptLayer, StaticKeys};
use storage_memory::Memory;
use storage_rest::{Api, Config, Rest};
use storage_sql::Sql;

fn config(address: &str, token: Option<&str>) -> Config {
    let mut config = Config::new(format!("http://{address}"));
    config.token = token.map(Secret::new);
    config.timeout = Duration::from_secs(20);
    config
}

async fn connect(ns: Namespace, kind: Kind, token: String) -> Result<Rest> {
    let place = ns.clone();
    let server = support::serve(&kind.server(&ns), move || async move { kind.open(&place).await }).await;
    Rest::connect(config(&ns.http_address(&server)?, Some(&token))).await
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Memory,
    Sqlite,
    Fs,
}

impl Kind {
    fn server(self, ns: &Namespace) -> String {
        format!("{self:?} {}", ns.name())
    }

    async fn open(self, ns: &Namespace) -> Result<Arc<dyn StorageBackend>> {
        Ok(match self {
            Self::Memory => Arc::new(ns.below(Memory::new())),
            Self::Sqlite => {
                Arc::new(ns.below(Sql::open(&format!("sqlite:{}", ns.dir().join("store.db").display())).await?))
            }
            Self::Fs => {
                let below = ns.below(Fs::open(ns.dir()).await?);
                let keys = StaticKeys::new("test", &DataKey::new(*b"0123456789abcdefghijklmnopqrstuv"))?;
                Storage::new(below).layer(EncryptLayer::new(keys)).backend().clone()
            }
        })
    }
}

fn target(name: &str, kind: Kind, capabilities: Capabilities) -> Target {
    let open = move |token: String| move |ns| connect(ns, kind, token.clone());
    let end = move |ns: Namespace| async move {
        support::end(&kind.server(&ns)).await;
        Ok(())
    };
    Target::new(name, open(support::TOKEN.into()))
        .requires(capabilities)
        .secret(support::TOKEN)
        .read_only(open(format!("reader-{}", support::TOKEN)))
        .cleanup(end)
        .group("rest")
}

/// A value that the encrypted store below cannot read.
async fn damage(ns: Namespace, key: Key) -> Result<()> {
    ns.stored_below()?.put(key, "plain").await.map(drop)
}

async fn foreign(ns: Namespace) -> Result<Rest> {
    let server = support::foreign(ns.name());
    let mut config = config(&ns.http_address(&server)?, None);
    config.api = Api::Files;
    Rest::connect(config).await
}

const ALL: Capabilities =
    Capabilities::new().atomic().conditional().conditional_delete().version_etags().transactions().queryable();
const ENCRYPTED: Capabilities =
    Capabilities::new().atomic().streaming().conditional().conditional_delete().version_etags().encryption();

storage_conformance::main!(
    target("rest-memory", Kind::Memory, ALL.versioning()).one_process(),
    target("rest-sqlite", Kind::Sqlite, ALL.streaming()).slow(),
    target("rest-fs", Kind::Fs, ENCRYPTED).damage(damage).slow(),
    Target::new("rest-foreign", foreign)
        .basic()
        .one_process()
        .cleanup(|ns: Namespace| async move {
            support::end_foreign(ns.name());
            Ok(())
        })
        .group("foreign"),
);
