//! Credentials that the application provides.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use storage_config::CredentialProvider;
use storage_core::{Error, Result};

/// Asks the application's [`CredentialProvider`] for each request, and makes of its text what a client needs.
pub struct Provided<C> {
    provider: Arc<dyn CredentialProvider>,
    name: String,
    read: fn(&str) -> Result<C>,
}

impl<C> Provided<C> {
    /// The credentials that the application knows by this name. An error of `read` must not repeat the text.
    pub fn new(provider: Arc<dyn CredentialProvider>, name: &str, read: fn(&str) -> Result<C>) -> Self {
        Self { provider, name: name.to_owned(), read }
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> object_store::CredentialProvider for Provided<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let failed = |e: Error| object_store::Error::Unauthenticated { path: self.name.clone(), source: Box::new(e) };
        let text = self.provider.credential(&self.name).await.map_err(failed)?;
        (self.read)(text.expose()).map(Arc::new).map_err(failed)
    }
}

impl<C> fmt::Debug for Provided<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provided").field("name", &self.name).finish_non_exhaustive()
    }
}
