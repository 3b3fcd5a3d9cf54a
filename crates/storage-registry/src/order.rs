//! In which order layers make sense, and where the short forms `retry` and `timeout` go.

use storage_core::{Error, ErrorKind, Result};

use crate::{LayerConfig, StorageConfig};

/// The first belongs above the second, and why.
const RULES: &[(&str, &str, &str)] = &[
    ("compress", "encrypt", "what is encrypted cannot be compressed"),
    ("cache", "encrypt", "else every hit is decrypted again"),
    ("cache", "compress", "else every hit is decompressed again"),
    ("cache", "versioned", "versions are kept by what the store holds, not by what a cache remembers"),
    ("cache", "retry", "many readers wait for one load, which should be tried again once and not by each of them"),
    ("cache", "limit", "a hit asks the store for nothing, so it should wait for no permit"),
    ("retry", "timeout", "each try should have its own time; above, the first stuck try ends all of them"),
    ("retry", "limit", "whoever waits for the next try should hold no permit"),
];

/// Layers that may be there more than once; of others not in [`RULES`] nothing is known.
const ONCE: &[&str] = &["cache", "compress", "encrypt", "limit", "prefix", "retry", "timeout", "versioned"];

/// All layers of a configuration, the short forms at their place, in an order that makes sense.
///
/// # Errors
/// `Config`, with the reason.
pub(crate) fn arrange(config: &StorageConfig) -> Result<Vec<LayerConfig>> {
    let mut layers = config.layers.clone();
    let at = |layers: &[LayerConfig], name: &str| layers.iter().position(|layer| layer.name() == name);
    for (name, options) in [("retry", &config.retry), ("timeout", &config.timeout)] {
        let Some(options) = options else { continue };
        if at(&layers, name).is_some() {
            return wrong(format!("`{name}` is given twice: keep the field `{name}` or the layer in `layers`"));
        }
        let watches = |layer: &&LayerConfig| matches!(layer.name(), "trace" | "metrics");
        let below = ["retry", "cache"].into_iter().find_map(|above| at(&layers, above));
        let place = below.map_or_else(|| layers.iter().take_while(watches).count(), |above| above + 1);
        layers.insert(place, LayerConfig::new(name).with_options(options));
    }
    check(&layers)?;
    Ok(layers)
}

fn check(layers: &[LayerConfig]) -> Result<()> {
    for (i, layer) in layers.iter().enumerate() {
        for above in &layers[..i] {
            let (above, below) = (above.name(), layer.name());
            if above == below && ONCE.contains(&below) {
                return wrong(format!("layers: `{below}` is there twice; once is enough"));
            }
            if let Some((_, _, why)) = RULES.iter().find(|(upper, lower, _)| (*upper, *lower) == (below, above)) {
                return wrong(format!(
                    "layers: write `{below}` before `{above}` (the first sees a call first), because {why}"
                ));
            }
        }
    }
    Ok(())
}

fn wrong<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::Config, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_stand_where_they_belong() {
        let arranged = |layers: &str, retry: bool, timeout: bool| {
            let mut config = StorageConfig::new("memory");
            config.layers = layers.split_whitespace().map(|layer| layer.parse().unwrap()).collect();
            config.retry = retry.then(Default::default);
            config.timeout = timeout.then(Default::default);
            let layers = arrange(&config).unwrap();
            layers.iter().map(LayerConfig::name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(arranged("", true, true), "retry timeout");
        assert_eq!(
            arranged("trace metrics cache limit compress encrypt", true, true),
            "trace metrics cache retry timeout limit compress encrypt"
        );
        assert_eq!(arranged("trace encrypt metrics", true, true), "trace retry timeout encrypt metrics");
        assert_eq!(arranged("encrypt retry limit", false, true), "encrypt retry timeout limit");
        assert_eq!(arranged("mine timeout limit", true, false), "retry mine timeout limit");
        assert_eq!(arranged("cache mine", false, true), "cache timeout mine");
    }
}
