//! The layers that the enabled features bring, by name.

use std::sync::Arc;

use storage_config::{ConnectionConfig, LayerFactory, StorageContext};
use storage_core::{Result, StorageBackend, async_trait};

type Backend = Arc<dyn StorageBackend>;

/// One of our layers.
pub(crate) struct Ours {
    name: &'static str,
    check: fn(&ConnectionConfig) -> Result<()>,
    put: fn(&ConnectionConfig, &StorageContext, Backend) -> Result<Backend>,
}

#[async_trait]
impl LayerFactory for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn check(&self, config: &ConnectionConfig) -> Result<()> {
        (self.check)(config)
    }

    async fn layer(&self, config: &ConnectionConfig, context: &StorageContext, inner: Backend) -> Result<Backend> {
        (self.put)(config, context, inner)
    }
}

/// Whether these are options of the layer.
#[allow(dead_code, reason = "it is for most of the layers that are enabled, and there may be none")]
fn typed<L: serde::de::DeserializeOwned>(config: &ConnectionConfig) -> Result<()> {
    config.typed::<L>().map(drop)
}

/// A layer that fits around any backend.
#[allow(dead_code, reason = "it is for most of the layers that are enabled, and there may be none")]
fn any<L>(config: &ConnectionConfig, _: &StorageContext, inner: Backend) -> Result<Backend>
where
    L: storage_core::Layer<dyn StorageBackend> + serde::de::DeserializeOwned,
{
    Ok(Arc::new(config.typed::<L>()?.layer(inner)))
}

/// The jitter of the waits is the context's.
#[cfg(feature = "retry")]
fn retry(config: &ConnectionConfig, context: &StorageContext, inner: Backend) -> Result<Backend> {
    let layer = config.typed::<storage_layer_retry::RetryLayer>()?;
    let layer = context.seed.into_iter().fold(layer, storage_layer_retry::RetryLayer::seed);
    Ok(Arc::new(storage_core::Layer::layer(layer, inner)))
}

/// All that are enabled.
pub(crate) fn all() -> Vec<Ours> {
    vec![
        #[cfg(feature = "cache")]
        Ours {
            name: "cache",
            check: typed::<storage_layer_cache::CacheLayer>,
            put: any::<storage_layer_cache::CacheLayer>,
        },
        #[cfg(feature = "compress")]
        Ours {
            name: "compress",
            check: typed::<storage_layer_compress::CompressLayer>,
            put: |config, _, inner| Ok(Arc::new(storage_layer_compress::Compressed::new(inner, config.typed()?)?)),
        },
        #[cfg(feature = "encrypt")]
        Ours { name: "encrypt", check: crate::encrypt::check, put: crate::encrypt::layer },
        #[cfg(feature = "limit")]
        Ours {
            name: "limit",
            check: typed::<storage_layer_limit::LimitLayer>,
            put: any::<storage_layer_limit::LimitLayer>,
        },
        #[cfg(feature = "metrics")]
        Ours {
            name: "metrics",
            check: typed::<storage_layer_metrics::MetricsLayer>,
            put: any::<storage_layer_metrics::MetricsLayer>,
        },
        #[cfg(feature = "prefix")]
        Ours {
            name: "prefix",
            check: typed::<storage_layer_prefix::PrefixLayer>,
            put: |config, _, inner| Ok(Arc::new(storage_layer_prefix::Prefixed::new(inner, config.typed()?)?)),
        },
        #[cfg(feature = "retry")]
        Ours { name: "retry", check: typed::<storage_layer_retry::RetryLayer>, put: retry },
        #[cfg(feature = "timeout")]
        Ours {
            name: "timeout",
            check: typed::<storage_layer_timeout::TimeoutLayer>,
            put: any::<storage_layer_timeout::TimeoutLayer>,
        },
        #[cfg(feature = "trace")]
        Ours {
            name: "trace",
            check: typed::<storage_layer_trace::TraceLayer>,
            put: any::<storage_layer_trace::TraceLayer>,
        },
        #[cfg(feature = "versioned")]
        Ours {
            name: "versioned",
            check: typed::<storage_layer_versioned::VersionedLayer>,
            put: |config, _, inner| Ok(Arc::new(storage_layer_versioned::Versioned::new(inner, config.typed()?)?)),
        },
    ]
}
