//! What a server says about itself and its store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::{BackendInfo, Capabilities, Consistency, Isolation, Key, Limits};

/// The answer to `GET /v1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Server))]
pub struct ServerJson {
    /// The version of the protocol: 1.
    pub protocol: u32,
    /// Names this run of the server: another after each start.
    pub boot: String,
    /// Milliseconds since the server was started.
    pub uptime_ms: u64,
    /// What the store says about itself.
    pub store: InfoJson,
    /// What the caller may do.
    pub access: AccessJson,
}

/// What a token allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Access))]
pub struct AccessJson {
    /// Reading, listing, queries.
    pub read: bool,
    /// Writing, deleting.
    pub write: bool,
    /// Deleting everything at once.
    pub clear: bool,
    /// Only keys that begin so.
    pub prefix: String,
}

/// What a store says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Store))]
pub struct InfoJson {
    /// A short stable word.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// The version of the crate.
    pub version: String,
    /// What works, by name; names that are not known are left out.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, bool>))]
    pub capabilities: Capabilities,
    /// How large things may be.
    pub limits: LimitsJson,
    /// Who sees an acknowledged write: `shared` or `process_local`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub consistency: Consistency,
    /// What transactions promise: `snapshot` or `serializable`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub isolation: Isolation,
}

/// The largest things that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Limits))]
pub struct LimitsJson {
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: u64,
    /// Bytes of metadata as canonical JSON.
    pub metadata: usize,
    /// The smallest step of dates, in nanoseconds.
    pub time_granularity_ns: u64,
}

impl From<&BackendInfo> for InfoJson {
    fn from(info: &BackendInfo) -> Self {
        Self {
            id: info.id.as_ref().into(),
            name: info.name.clone(),
            version: info.version.clone(),
            capabilities: info.capabilities,
            limits: LimitsJson {
                key: info.limits.key,
                value: info.limits.value,
                metadata: info.limits.metadata,
                time_granularity_ns: info.limits.time_granularity.as_nanos().try_into().unwrap_or(u64::MAX),
            },
            consistency: info.consistency,
            isolation: info.isolation,
        }
    }
}

impl From<LimitsJson> for Limits {
    fn from(limits: LimitsJson) -> Self {
        let mut own = Self::default();
        own.key = limits.key.min(Key::MAX_LEN);
        own.value = limits.value;
        own.metadata = limits.metadata;
        own.time_granularity = Duration::from_nanos(limits.time_granularity_ns);
        own
    }
}
