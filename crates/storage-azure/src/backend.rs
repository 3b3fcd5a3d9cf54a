//! Connecting. What a connected container does is in `storage-object-store`, and in `calls.rs` what only Azure can.

use std::{env, sync::Arc, time::Duration};

use object_store::azure::MicrosoftAzureBuilder;
use storage_config::CredentialProvider;
use storage_core::Result;
use storage_object_store::{
    Naming, ObjectStoreBackend, Profile,
    http::{Connector, no_retries},
};

use crate::{
    Config,
    calls::Calls,
    credentials::Account,
    error::{self, AZURE},
};

/// Connects to a container.
///
/// The container is listed, and a few blobs below `.storage/probe/` are written and deleted, which shows whether the credentials
/// suffice and what the server honours.
///
/// # Errors
/// `Config`, `NotFound` for a container that does not exist, `Unauthenticated`, `PermissionDenied`, `Unavailable` and `Timeout` for
/// a server that cannot be reached; the message names the setting to change.
pub async fn connect(config: Config) -> Result<ObjectStoreBackend> {
    connect_with(config, None).await
}

pub(crate) async fn connect_with(
    config: Config,
    provider: Option<Arc<dyn CredentialProvider>>,
) -> Result<ObjectStoreBackend> {
    config.check()?;
    let connector = Connector::new(&config.http, error::explain)?;
    let account = Account::new(&config, provider, |name| env::var(name).ok())?;
    let container = format!("{}/{}", account.endpoint, config.container);
    let connector = connector.of(&AZURE, &container);
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&account.name)
        .with_container_name(&config.container)
        .with_endpoint(account.endpoint.clone())
        .with_credentials(account.credentials)
        .with_http_connector(connector.clone())
        .with_retry(no_retries());
    let store = Arc::new(builder.build().map_err(error::build)?);
    let calls = Calls {
        store: store.clone(),
        client: connector.client(),
        container,
        account: account.name,
        timeout: config.http.timeout,
    };
    let made = account.endpoint == format!("https://{}.blob.core.windows.net", calls.account);
    let verified = calls.verify().await;
    let verified = verified.map_err(|e| if made { error::no_account(e, &calls.account) } else { e });
    verified.map_err(|e| AZURE.at_connect(e))?;
    let mut profile = profile();
    profile.timeout = config.http.timeout;
    let connected = ObjectStoreBackend::connect_native(store, Arc::new(calls), profile, config.store).await;
    connector.connected();
    connected.map_err(|e| AZURE.at_connect(e))
}

fn profile() -> Profile {
    let mut profile = Profile::new("azure");
    profile.name = "Azure Blob Storage".to_owned();
    profile.naming = Naming::FlatUtf16;
    profile.name_limit = 1024;
    profile.sorted = true;
    profile.max_parts = 50_000;
    // An etag stands for a write, not for its bytes: it is "updated every time a write operation is performed on an object", says
    // https://learn.microsoft.com/azure/storage/blobs/concurrency-manage. It looks like the time of the write in steps of 100 ns, so
    // none should come again after a delete, which Microsoft does not promise.
    profile.version_etags = true;
    profile.time_granularity = Duration::from_secs(1);
    profile
}
