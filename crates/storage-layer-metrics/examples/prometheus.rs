//! A store in memory, measured, and what Prometheus gets to read of it.
#![allow(clippy::print_stdout, reason = "the example shows its result")]

use futures_util::TryStreamExt;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use storage_core::{Entry, Storage};
use storage_layer_metrics::{MetricsLayer, names};
use storage_memory::Memory;

/// Measures some operations and returns what a program would serve at `/metrics`.
pub(crate) async fn scrape() -> Result<String, Box<dyn std::error::Error>> {
    // The recorder comes first: the layer describes its metrics to the one that is there. Buckets make the durations a
    // histogram that Prometheus can add up over several processes.
    let buckets = [0.001, 0.01, 0.1, 1.0, 10.0];
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(names::DURATION.into()), &buckets)?
        .install_recorder()?;

    let storage = Storage::new(Memory::new()).layer(MetricsLayer::new());
    storage.put("letters/a", "dear diary").await?;
    storage.put("letters/b", "dear john").await?;
    storage.get("letters/a").await?;
    let _: Vec<Entry> = storage.list("letters/").await?.try_collect().await?;
    if storage.copy("letters/z", "letters/c").await.is_ok() {
        return Err("a copy of nothing must fail".into());
    }
    Ok(prometheus.render())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", scrape().await?);
    Ok(())
}
