//! One call of every method, for tests of layers: what passes, what is counted, what is refused.

use std::time::Duration;

use futures_util::{TryStreamExt, future::BoxFuture};
use storage_core::{
    BatchOptions, Body, CopyOptions, DeleteOptions, Error, ErrorKind, GetOptions, Key, ListOptions, PresignOptions,
    PutOptions, Query, RenameOptions, Result, StatOptions, StorageBackend,
};

macro_rules! names {
    ($($name:ident [$($parameter:tt)*] [$($argument:tt)*] -> $result:ty;)*) => {
        /// The methods of the trait but `info`, in its order.
        pub const METHODS: &[&str] = &[$(stringify!($name)),*];
    };
}
storage_core::each_method!(names);

/// Calls a method by its name, on the key `a` of a store that has a value there. A batch calls one item, streams are read to their end, a
/// transaction is rolled back.
///
/// # Errors
/// Those of the call, of a stream and of an item; `InvalidInput` for a name that is none of [`METHODS`].
pub fn call<'a>(backend: &'a dyn StorageBackend, method: &'a str) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let (a, b) = (Key::parse("a")?, Key::parse("b")?);
        match method {
            "get" => {
                if let Some(object) = backend.get(&a, GetOptions::new()).await? {
                    object.body.bytes(u64::MAX).await?;
                }
            }
            "put" => drop(backend.put(&a, Body::from("value"), PutOptions::new()).await?),
            "delete" => backend.delete(&b, DeleteOptions::new()).await?,
            "stat" => drop(backend.stat(&a, StatOptions::new()).await?),
            "list" => drop(backend.list(ListOptions::new()).await?.try_collect::<Vec<_>>().await?),
            "get_batch" => {
                for result in backend.get_batch(vec![(a, GetOptions::new())]).await? {
                    if let Some(object) = result? {
                        object.body.bytes(u64::MAX).await?;
                    }
                }
            }
            "put_batch" => {
                let items = vec![(a, Body::from("value"), PutOptions::new())];
                for result in backend.put_batch(items, BatchOptions::new()).await? {
                    result?;
                }
            }
            "delete_batch" => {
                for result in backend.delete_batch(vec![(b, DeleteOptions::new())], BatchOptions::new()).await? {
                    result?;
                }
            }
            "query" => drop(backend.query(Query::new()).await?.try_collect::<Vec<_>>().await?),
            "clear" => backend.clear("b").await?,
            "copy" => drop(backend.copy(&a, &b, CopyOptions::new()).await?),
            "rename" => drop(backend.rename(&a, &b, RenameOptions::new()).await?),
            "versions" => drop(backend.versions(&a).await?.try_collect::<Vec<_>>().await?),
            // Most stores presign nothing, and that is no failure of the call.
            "presign" => match backend.presign(&a, PresignOptions::get(Duration::from_secs(60))).await {
                Err(e) if e.kind() == ErrorKind::Unsupported => {}
                presigned => drop(presigned?),
            },
            "begin" => backend.begin().await?.rollback().await?,
            "health" => backend.health().await?,
            "disconnect" => backend.disconnect().await?,
            _ => return Err(Error::new(ErrorKind::InvalidInput, format!("there is no method `{method}`"))),
        }
        Ok(())
    })
}
