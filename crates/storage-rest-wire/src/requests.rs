//! What requests ask, and what answers other than entries say. Members and parameters that are not known are refused.

use serde::{Deserialize, Serialize};
use storage_core::{Condition, Error, ErrorKind, Etag, ListOptions, Metadata, PresignMethod, Result};

use crate::{EntryJson, Problem};

macro_rules! json {
    ($($(#[$doc:meta])* $name:ident as $schema:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = $schema))]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    )* };
}
json! {
    /// A condition on a write: at most one of the two.
    ConditionJson as Condition {
        /// Only if the key has no value.
        if_absent: bool,
        /// Only if the value has this etag, which stands here without quotes.
        #[serde(skip_serializing_if = "Option::is_none")]
        if_match: Option<String>,
    }
    /// What `POST /v1/copy` does.
    CopyRequest as Copy {
        /// The key of the source.
        from: String,
        /// The key of the target.
        to: String,
        /// The version of the source; the newest unless given.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// The target's metadata; the source's unless given.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        metadata: Option<Metadata>,
        /// What must hold of the target.
        #[serde(skip_serializing_if = "Option::is_none")]
        condition: Option<ConditionJson>,
    }
    /// What `POST /v1/rename` does.
    RenameRequest as Rename {
        /// The key of the source.
        from: String,
        /// The key of the target.
        to: String,
        /// What must hold of the target.
        #[serde(skip_serializing_if = "Option::is_none")]
        condition: Option<ConditionJson>,
    }
    /// What `POST /v1/clear` does.
    ClearRequest as Clear {
        /// All keys that begin so are deleted. Without a prefix it needs the scope `clear`.
        prefix: String,
    }
    /// What `POST /v1/batch/get` reads.
    GetBatch as GetBatch {
        /// The values.
        items: Vec<GetItem>,
    }
    /// A value to read.
    GetItem as GetItem {
        /// The key.
        key: String,
        /// The version; the newest unless given.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    }
    /// A value to write. The lines of `POST /v1/batch/put` are these, each with as many bytes behind it as it says.
    PutItem as PutItem {
        /// The key.
        key: String,
        /// Bytes of the value, which follow the line.
        body: u64,
        /// The metadata.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        metadata: Option<Metadata>,
        /// What must hold.
        #[serde(skip_serializing_if = "Option::is_none")]
        condition: Option<ConditionJson>,
        /// A value that the store fetches itself; the body is empty then.
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    }
    /// What `POST /v1/batch/delete` removes.
    DeleteBatch as DeleteBatch {
        /// All or nothing.
        atomic: bool,
        /// The values.
        items: Vec<DeleteItem>,
    }
    /// A value to remove.
    DeleteItem as DeleteItem {
        /// The key.
        key: String,
        /// This version, for good; else the newest.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Only if the value has this etag.
        #[serde(skip_serializing_if = "Option::is_none")]
        if_match: Option<String>,
    }
    /// What became of a batch.
    BatchResults as BatchResults {
        /// One for each item, in order.
        results: Vec<ItemResult>,
    }
    /// What became of an item of a batch: an entry, or an error, or neither for a delete that was done.
    ItemResult as ItemResult {
        /// What was written.
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<EntryJson>,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Box<Problem>>,
    }
    /// A request to sign.
    PresignRequest as Presign {
        /// The key.
        key: String,
        /// `GET`, `PUT`, `HEAD` or `DELETE`.
        method: String,
        /// Milliseconds for which it can be sent.
        expires_in_ms: u64,
        /// The content type that a `PUT` must carry.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// The bytes that a `PUT` must have.
        #[serde(skip_serializing_if = "Option::is_none")]
        content_length: Option<u64>,
    }
    /// A request that anybody can send for a while.
    PresignedJson as Presigned {
        /// The method.
        method: String,
        /// Where to send it. A secret.
        url: String,
        /// Headers that it must carry.
        headers: Vec<(String, String)>,
        /// Milliseconds for which it can be sent.
        expires_in_ms: u64,
    }
    /// A transaction that was begun.
    TransactionJson as Transaction {
        /// Its id, for the header `storage-transaction`.
        id: String,
        /// It is rolled back when no request belonging to it came for so long.
        lease_ms: u64,
    }
    /// What became of a write whose answer was lost.
    WrittenJson as Written {
        /// Whether it was done, or refused, for which `status` and `body` are the answer. Otherwise it was not done, and will not be.
        done: bool,
        /// The status of the answer.
        status: u16,
        /// The answer.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
        body: Option<serde_json::Value>,
    }
    /// Parameters of requests for a value.
    ObjectParams as ObjectParams {
        /// This version instead of the newest.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// `false`: the answer need not hold more of the entry than its size, etag and version.
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<bool>,
    }
}

/// Parameters of `GET /v1/list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListParams {
    /// Only keys that begin so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Whether keys with a `/` behind the prefix are folded into common prefixes.
    pub delimited: bool,
    /// Only items behind this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_after: Option<String>,
    /// At most so many items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether entries have metadata.
    pub metadata: bool,
    /// Whether entries need etags and dates of creation; `true` unless given.
    pub etags: bool,
}

impl Default for ListParams {
    fn default() -> Self {
        ListOptions::default().into()
    }
}

impl From<ListOptions> for ListParams {
    fn from(options: ListOptions) -> Self {
        Self {
            prefix: options.prefix,
            delimited: options.delimited,
            start_after: options.start_after,
            limit: options.limit,
            metadata: options.metadata,
            etags: options.etags,
        }
    }
}

impl From<ListParams> for ListOptions {
    fn from(params: ListParams) -> Self {
        let mut options = Self::new().prefix(params.prefix).delimited(params.delimited);
        options = options.metadata(params.metadata).etags(params.etags);
        (options.start_after, options.limit) = (params.start_after, params.limit);
        options
    }
}

impl ConditionJson {
    /// The condition, if there is one.
    ///
    /// # Errors
    /// `InvalidInput` for both at once.
    pub fn condition(self) -> Result<Option<Condition>> {
        match (self.if_absent, self.if_match) {
            (false, None) => Ok(None),
            (true, None) => Ok(Some(Condition::IfAbsent)),
            (false, Some(etag)) => Ok(Some(Condition::IfMatch(Etag::from(etag)))),
            (true, Some(_)) => Err(Error::new(ErrorKind::InvalidInput, "a value cannot be absent and have an etag")),
        }
    }
}

/// `Unsupported` for a condition that this protocol has no word for.
impl TryFrom<&Condition> for ConditionJson {
    type Error = Error;

    fn try_from(condition: &Condition) -> Result<Self> {
        match condition {
            Condition::IfAbsent => Ok(Self { if_absent: true, if_match: None }),
            Condition::IfMatch(etag) => Ok(Self { if_absent: false, if_match: Some(etag.as_str().into()) }),
            _ => Err(Error::unsupported("this condition")),
        }
    }
}

impl PresignRequest {
    /// The method.
    ///
    /// # Errors
    /// `InvalidInput` for another one.
    pub fn parsed_method(&self) -> Result<PresignMethod> {
        let all = [PresignMethod::Get, PresignMethod::Put, PresignMethod::Head, PresignMethod::Delete];
        let method = all.into_iter().find(|method| method.as_str() == self.method);
        method
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "the `method` must be `GET`, `PUT`, `HEAD` or `DELETE`"))
    }
}
