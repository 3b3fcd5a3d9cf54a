//! A transaction: one of the server, which ends by itself when nobody asks it anything.

use std::{fmt, sync::Arc};

use reqwest::{Method, StatusCode};
use storage_core::{
    BackendInfo, Error, ErrorKind, Result, StorageBackend, Transaction, async_trait, each_method, pending::Keys,
};
use storage_rest_wire::TransactionJson;
use tokio::runtime::Handle;

use crate::{connect::Remote, error, task::Tasks, write::Write};

pub(crate) struct RestTransaction {
    /// The instance on which it was begun.
    parent: Remote,
    inside: Remote,
    /// Rolls it back when it is dropped.
    end: Ending,
}

/// Rolls a transaction back that was not ended.
struct Ending(Option<(Remote, Arc<str>)>);

impl Remote {
    pub(crate) async fn begin_transaction(&self) -> Result<RestTransaction> {
        if self.transaction.is_some() {
            return Err(Error::unsupported("a transaction within a transaction"));
        }
        self.tasks.settled_prefix("").await?;
        let (remote, request) = (self.clone(), self.request(Method::POST, "v1/transactions", &[])?);
        // In a task of its own: one that begins although its caller has gone is rolled back.
        let begun = tokio::spawn(async move {
            let answer = remote.http().ask(request).await?;
            if answer.status != StatusCode::CREATED {
                return Err(match answer.success() {
                    Ok(_) => error::strange("no transaction was begun"),
                    Err(e) => e,
                });
            }
            let id: Arc<str> = answer.json::<TransactionJson>()?.id.into();
            let inside = Remote {
                shared: remote.shared.clone(),
                tasks: Tasks::new(remote.http().timeout),
                transaction: Some(id.clone()),
            };
            let end = Ending(Some((remote.clone(), id)));
            Ok(RestTransaction { parent: remote, inside, end })
        });
        begun.await.unwrap_or_else(|e| {
            let message = "the runtime in which the transaction was begun has ended; connect again";
            Err(Error::new(ErrorKind::Closed, message).with_source(e))
        })
    }
}

impl RestTransaction {
    fn path(&self) -> String {
        format!("v1/transactions/{}", self.inside.transaction.as_deref().unwrap_or_default())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (Some((remote, id)), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            // If it does not arrive, the lease runs out.
            if let Ok(request) = remote.http().request(Method::DELETE, &format!("v1/transactions/{id}"), &[]) {
                let _ = remote.http().ask(request).await;
            }
        });
    }
}

macro_rules! forward {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl StorageBackend for RestTransaction {
            fn info(&self) -> &BackendInfo {
                self.inside.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.inside.$name($($argument),*).await
            })*
        }
    };
}
each_method!(forward);

#[async_trait]
impl Transaction for RestTransaction {
    async fn commit(&self) -> Result<()> {
        // Writes of the transaction that were given up end first, those of others wait for it.
        self.inside.tasks.settled_prefix("").await?;
        let write = Write::new(Method::POST, format!("{}/commit", self.path()));
        self.parent.write(Keys::prefix(""), write).await.map(drop)
    }

    async fn rollback(&self) -> Result<()> {
        self.parent.write(Vec::new(), Write::new(Method::DELETE, self.path())).await.map(drop)
    }
}

impl fmt::Debug for RestTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = &self.end;
        f.debug_struct("RestTransaction").field("parent", &self.parent).finish_non_exhaustive()
    }
}
