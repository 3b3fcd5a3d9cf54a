//! The backend: the whole contract on a storage-server, the basics on any other.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt;
use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use storage_core::{
    BackendInfo, BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Entry, EntryStream, Error, ErrorKind,
    GetOptions, Key, ListItem, ListOptions, ListStream, Object, PresignOptions, PresignedRequest, PutOptions, Query,
    RenameOptions, Result, StatOptions, StorageBackend, Transaction, async_trait, each_method, pending::Keys,
};
use storage_rest_wire::{
    ClearRequest, ConditionJson, CopyRequest, Line, ListParams, PresignRequest, PresignedJson, RenameRequest, etag,
    headers, key as keys, metadata_header,
};

use crate::{
    Config,
    batch::entry_of,
    connect::{Found, Remote, set},
    error,
    write::Write,
};

/// A store behind HTTP. Clones share the connections; disconnecting any closes them for all.
#[derive(Clone)]
pub struct Rest(Arc<dyn StorageBackend>);

impl Rest {
    /// Connects to a server by the URL below which its routes are, with the defaults of [`Config`].
    ///
    /// # Errors
    /// As [`connect`](Rest::connect).
    pub async fn open(url: &str) -> Result<Self> {
        Self::connect(Config::new(url)).await
    }

    /// Connects to a server. What it turns out to be, and may do, is in `info()`.
    ///
    /// # Errors
    /// `Config` for what cannot be meant; `Unauthenticated` for a token that is not known; `Unavailable` and `Timeout` when the
    /// server cannot be reached.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(match Found::connect(&config).await? {
            Found::Remote(remote) => Self(Arc::new(remote)),
            Found::Foreign(foreign) => Self(Arc::new(foreign)),
        })
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rest").field(&self.0).finish()
    }
}

macro_rules! forward {
    ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl StorageBackend for Rest {
            fn info(&self) -> &BackendInfo {
                self.0.info()
            }
            $(async fn $name(&self, $($parameter)*) -> $result {
                self.0.$name($($argument),*).await
            })*
        }
    };
}
each_method!(forward);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl StorageBackend for Remote {
    fn info(&self) -> &BackendInfo {
        &self.shared.info
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        self.tasks.settled(key).await?;
        self.read(key, options).await
    }

    async fn put(&self, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        self.tasks.settled(key).await?;
        let PutOptions { metadata, condition, source, .. } = options;
        let mut write = Write::new(Method::PUT, format!("v1/objects/{}", keys::encode(key))).body(body);
        if let Some(metadata) = &metadata {
            write = write.header(headers::METADATA, metadata_header(metadata));
        }
        if let Some(source) = source {
            write = write.header(headers::SOURCE, BASE64URL_NOPAD.encode(source.as_bytes()));
        }
        write = conditional(write, condition.as_ref())?.condition(key, condition.as_ref());
        let answer = self.write(key, write).await?;
        entry_of(answer.json().map_err(Error::ambiguous)?, key, metadata)
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<()> {
        self.tasks.settled(key).await?;
        let mut write = Write::new(Method::DELETE, format!("v1/objects/{}", keys::encode(key)));
        if let Some(version) = &options.version {
            write = write.param("version", version.as_str());
        }
        write = conditional(write, options.condition.as_ref())?.condition(key, options.condition.as_ref());
        self.write(key, write).await.map(drop)
    }

    async fn stat(&self, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        self.tasks.settled(key).await?;
        self.look(key, options).await
    }

    async fn list(&self, options: ListOptions) -> Result<ListStream> {
        self.tasks.settled_prefix(&options.prefix).await?;
        let ListParams { prefix, delimited, start_after, limit, metadata, etags } = options.into();
        let limit = limit.map(|limit| limit.to_string());
        let mut params = vec![("prefix", prefix.as_str())];
        let flags = [("delimited", delimited, false), ("metadata", metadata, false), ("etags", etags, true)];
        for (name, value, usual) in flags {
            if value != usual {
                params.push((name, if value { "true" } else { "false" }));
            }
        }
        params.extend(start_after.as_deref().map(|after| ("start_after", after)));
        params.extend(limit.as_deref().map(|limit| ("limit", limit)));
        let lines = self.lines(self.request(Method::GET, "v1/list", &params)?).await?;
        let items = lines.map(move |line| match line? {
            Line::Entry(entry) => {
                let mut entry = entry.into_entry(None)?;
                if metadata && entry.damaged.is_none() {
                    entry.metadata.get_or_insert_default();
                }
                Ok(ListItem::Entry(entry))
            }
            Line::Prefix(prefix) => Ok(ListItem::Prefix(prefix)),
            _ => Err(error::strange("a line is no item")),
        });
        Ok(items.boxed())
    }

    async fn get_batch(&self, items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> {
        self.tasks.settled_keys(items.iter().map(|(key, _)| key)).await?;
        self.read_batch(items).await
    }

    async fn put_batch(
        &self,
        items: Vec<(Key, Body, PutOptions)>,
        options: BatchOptions,
    ) -> Result<Vec<Result<Entry>>> {
        self.write_batch(items, options).await
    }

    async fn delete_batch(&self, items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> {
        self.remove_batch(items, options).await
    }

    async fn query(&self, query: Query) -> Result<EntryStream> {
        query.validate()?;
        self.tasks.settled_prefix(&query.prefix).await?;
        let mut request = self.request(Method::POST, "v1/query", &[])?;
        set(&mut request, CONTENT_TYPE.as_str(), "application/json")?;
        let json = serde_json::to_vec(&query)
            .map_err(|e| Error::new(ErrorKind::InvalidInput, "the query cannot be written as JSON").with_source(e))?;
        *request.body_mut() = Some(json.into());
        let entries = self.entries(request).await?;
        Ok(entries.map(with_metadata).boxed())
    }

    async fn clear(&self, prefix: &str) -> Result<()> {
        self.tasks.settled_prefix(prefix).await?;
        let write = Write::json("v1/clear", &ClearRequest { prefix: prefix.into() })?;
        self.write(Keys::prefix(prefix), write).await.map(drop)
    }

    async fn copy(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<Entry> {
        self.tasks.settled_keys([from, to]).await?;
        let request = CopyRequest {
            from: from.as_str().into(),
            to: to.as_str().into(),
            version: options.version.map(String::from),
            metadata: options.metadata.as_deref().cloned(),
            condition: options.condition.as_ref().map(ConditionJson::try_from).transpose()?,
        };
        let write = Write::json("v1/copy", &request)?.condition(to, options.condition.as_ref());
        let answer = self.write(to, write).await?;
        answer.json::<storage_rest_wire::EntryJson>().map_err(Error::ambiguous)?.into_entry(Some(to))
    }

    async fn rename(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<Entry> {
        self.tasks.settled_keys([from, to]).await?;
        let request = RenameRequest {
            from: from.as_str().into(),
            to: to.as_str().into(),
            condition: options.condition.as_ref().map(ConditionJson::try_from).transpose()?,
        };
        let answer = self.write(vec![from.clone(), to.clone()], Write::json("v1/rename", &request)?).await?;
        answer.json::<storage_rest_wire::EntryJson>().map_err(Error::ambiguous)?.into_entry(Some(to))
    }

    async fn versions(&self, key: &Key) -> Result<EntryStream> {
        if !self.shared.info.capabilities.versioning {
            return Err(Error::unsupported("versions"));
        }
        self.tasks.settled(key).await?;
        let request = self.request(Method::GET, &format!("v1/versions/{}", keys::encode(key)), &[])?;
        let entries = self.entries(request).await?;
        Ok(entries.map(with_metadata).boxed())
    }

    async fn presign(&self, key: &Key, options: PresignOptions) -> Result<PresignedRequest> {
        let method = options.method;
        let ask = PresignRequest {
            key: key.as_str().into(),
            method: method.as_str().into(),
            expires_in_ms: options.expires_in.as_millis().try_into().unwrap_or(u64::MAX),
            content_type: options.content_type,
            content_length: options.content_length,
        };
        let mut request = self.request(Method::POST, "v1/presign", &[])?;
        set(&mut request, CONTENT_TYPE.as_str(), "application/json")?;
        *request.body_mut() = Some(serde_json::to_vec(&ask).unwrap_or_default().into());
        let signed: PresignedJson = self.http().ask(request).await?.success()?.json()?;
        let lifetime = Duration::from_millis(signed.expires_in_ms);
        let presigned = PresignedRequest::new(method, signed.url, lifetime);
        Ok(signed.headers.into_iter().fold(presigned, |request, (name, value)| request.header(name, value)))
    }

    async fn begin(&self) -> Result<Arc<dyn Transaction>> {
        if !self.shared.info.capabilities.transactions {
            return Err(Error::unsupported("transactions"));
        }
        Ok(Arc::new(self.begin_transaction().await?))
    }

    async fn health(&self) -> Result<()> {
        let answer = self.http().ask(self.request(Method::GET, "health", &[])?).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            _ => answer.success().map(drop),
        }
    }

    async fn disconnect(&self) -> Result<()> {
        self.shared.closed.store(true, Ordering::Release);
        Ok(())
    }
}

fn conditional(write: Write, condition: Option<&Condition>) -> Result<Write> {
    match condition {
        None => Ok(write),
        Some(Condition::IfAbsent) => Ok(write.header("if-none-match", "*")),
        Some(Condition::IfMatch(tag)) => Ok(write.header("if-match", etag::quoted(tag))),
        Some(_) => Err(Error::unsupported("this condition")),
    }
}

/// Metadata that is empty is left out where it travels.
fn with_metadata(entry: Result<Entry>) -> Result<Entry> {
    let mut entry = entry?;
    if entry.damaged.is_none() {
        entry.metadata.get_or_insert_default();
    }
    Ok(entry)
}
