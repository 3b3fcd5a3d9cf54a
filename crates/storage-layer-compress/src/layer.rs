//! The settings, and how the layer is put around a backend.

use std::sync::Arc;

use serde::Deserialize;
use storage_core::{Error, ErrorKind, Layer, Result, StorageBackend};

use crate::Compressed;

/// How values are compressed. Values written with either can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Algorithm {
    /// Zstandard, levels 1 to 22, by default 3.
    #[default]
    Zstd,
    /// Gzip, levels 1 to 9, by default 6. It is slower and compresses less; for programs that read what lies below and know
    /// nothing else.
    Gzip,
}

impl Algorithm {
    const fn levels(self) -> (u32, u32, u32) {
        match self {
            Self::Zstd => (1, 3, 22),
            Self::Gzip => (1, 6, 9),
        }
    }
}

/// What becomes of a value below that this layer did not write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Foreign {
    /// Reading it is `Corrupt`.
    #[default]
    Refuse,
    /// It is read as it is: for a store that was there before the layer.
    Pass,
}

/// Compresses every value, with zstd at level 3 unless told otherwise.
///
/// In a configuration: `algorithm` (`zstd`, `gzip`), `level`, `foreign` (`refuse`, `pass`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, try_from = "Settings")]
pub struct CompressLayer {
    pub(crate) algorithm: Algorithm,
    pub(crate) level: u32,
    pub(crate) foreign: Foreign,
}

impl Default for CompressLayer {
    fn default() -> Self {
        Self::new(Algorithm::default())
    }
}

impl CompressLayer {
    /// With this algorithm at its default level.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, level: algorithm.levels().1, foreign: Foreign::default() }
    }

    /// How hard to try: 1 is the fastest, the highest makes the smallest values.
    ///
    /// # Errors
    /// `Config` for a level that the algorithm does not have.
    pub fn level(mut self, level: u32) -> Result<Self> {
        let (least, _, most) = self.algorithm.levels();
        if !(least..=most).contains(&level) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("compress: `level` must be {least} to {most} for {:?}", self.algorithm).to_lowercase(),
            ));
        }
        self.level = level;
        Ok(self)
    }

    /// What becomes of values that were written without this layer.
    #[must_use]
    pub fn foreign(mut self, foreign: Foreign) -> Self {
        self.foreign = foreign;
        self
    }
}

/// Over a backend that leaves too little for metadata, the limits say so. [`Compressed::new`] refuses it.
impl<S: StorageBackend + ?Sized> Layer<S> for CompressLayer {
    type Backend = Compressed<S>;

    fn layer(self, inner: Arc<S>) -> Compressed<S> {
        Compressed::wrap(inner, self)
    }
}

/// The layer as a configuration file writes it.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    algorithm: Algorithm,
    level: Option<u32>,
    foreign: Foreign,
}

impl TryFrom<Settings> for CompressLayer {
    type Error = Error;

    fn try_from(settings: Settings) -> Result<Self> {
        let layer = Self::new(settings.algorithm).foreign(settings.foreign);
        settings.level.map_or(Ok(layer), |level| layer.level(level))
    }
}
