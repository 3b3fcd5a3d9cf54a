//! The one place that decides whether a backend may see an option.
//!
//! Every struct is taken apart completely: a new option does not compile until it is decided here, so a backend written
//! before the option existed can never drop it in silence. `Storage` runs these checks before every call.

use crate::{
    BackendInfo, BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Error, ErrorKind, GetOptions, Key,
    ListOptions, Metadata, PutOptions, RenameOptions, Result, StatOptions,
};

impl Key {
    /// Whether this backend takes a key of this length and shape.
    ///
    /// # Errors
    /// `InvalidKey`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let (len, max) = (self.as_str().len(), info.limits.key);
        if let Some(shape) = info.refused_keys.iter().find(|shape| shape.matches(self.as_str())) {
            let what = format!("this backend refuses keys of the shape {shape:?}; see BackendInfo::refused_keys");
            return Err(Error::new(ErrorKind::InvalidKey, what));
        }
        if len <= max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidKey, format!("the key has {len} bytes, this backend takes at most {max}")))
    }
}

impl Body {
    /// Whether this backend takes a value of this declared length.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let (len, max) = (self.len().unwrap_or(0), info.limits.value);
        if len <= max {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooLarge, format!("the value has {len} bytes, this backend takes at most {max}")))
    }
}

impl Metadata {
    /// Whether this backend takes this metadata.
    ///
    /// # Errors
    /// `InvalidInput` (see [`Metadata::validate`]), `TooLarge`, or `Unsupported` where none is kept.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        self.validate()?;
        let (size, max) = (self.size(), info.limits.metadata);
        if max == 0 {
            return need(*self == Self::new(), "metadata");
        }
        if size <= max {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("the metadata has {size} bytes as JSON, this backend takes at most {max}"),
        ))
    }
}

impl GetOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported` or `InvalidInput`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { range, version, if_match: _, if_none_match: _, prefer_buffered: _, entry: _, parallel_reads } = self;
        if parallel_reads.is_some_and(|how| how.at_once == 0 || how.chunk == 0) {
            let message = "a parallel read needs at least one range of at least one byte";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        range.map_or(Ok(()), |range| range.validate())?;
        need_versioning(version.is_some(), info, "reading a version")
    }
}

impl StatOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { version } = self;
        need_versioning(version.is_some(), info, "reading a version")
    }
}

impl PutOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported`, `InvalidInput` or `TooLarge`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { metadata, condition, source } = self;
        need(source.is_none() || info.capabilities.sources, "values that the store fetches itself")?;
        metadata.as_ref().map_or(Ok(()), |m| m.check(info))?;
        need_conditional(condition, info)
    }
}

impl PutOptions {
    /// Whether there is one value: that of the body, or that of `source`.
    pub(crate) fn check_body(&self, body: &Body) -> Result<()> {
        match &self.source {
            Some(_) if body.len() != Some(0) => {
                Err(Error::new(ErrorKind::InvalidInput, "a put with a source must have an empty body"))
            }
            _ => Ok(()),
        }
    }
}

impl DeleteOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported` or `InvalidInput`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { version, condition } = self;
        need_versioning(version.is_some(), info, "deleting a version")?;
        match condition {
            None => Ok(()),
            Some(Condition::IfAbsent) => {
                Err(Error::new(ErrorKind::InvalidInput, "a delete cannot require that the key is absent"))
            }
            Some(Condition::IfMatch(_)) if version.is_some() => {
                Err(Error::new(ErrorKind::InvalidInput, "a version never changes: delete it without a condition"))
            }
            Some(Condition::IfMatch(_)) => need(info.capabilities.conditional_delete, "a condition on delete"),
        }
    }
}

impl CopyOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported`, `InvalidInput` or `TooLarge`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { version, metadata, condition } = self;
        need_versioning(version.is_some(), info, "copying a version")?;
        metadata.as_ref().map_or(Ok(()), |m| m.check(info))?;
        need_conditional(condition, info)
    }
}

impl RenameOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { condition } = self;
        need_conditional(condition, info)
    }
}

impl ListOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `InvalidKey` for a prefix or start with a NUL.
    pub fn check(&self, _: &BackendInfo) -> Result<()> {
        let Self { prefix, delimited: _, start_after, limit: _, metadata: _, etags: _ } = self;
        check_prefix(prefix)?;
        start_after.as_deref().map_or(Ok(()), check_prefix)
    }
}

impl BatchOptions {
    /// Whether this backend honours these options.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn check(&self, info: &BackendInfo) -> Result<()> {
        let Self { atomic } = self;
        need(!atomic || info.capabilities.transactions, "atomic batches")
    }
}

/// Whether any key could start with this text.
pub(crate) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.as_bytes().contains(&0) {
        return Err(Error::new(ErrorKind::InvalidKey, "a prefix must not contain a NUL"));
    }
    Ok(())
}

pub(crate) fn need(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::unsupported(what)) }
}

fn need_versioning(asked: bool, info: &BackendInfo, what: &str) -> Result<()> {
    need(!asked || info.capabilities.versioning, what)
}

fn need_conditional(condition: &Option<Condition>, info: &BackendInfo) -> Result<()> {
    need(condition.is_none() || info.capabilities.conditional, "a condition on writes")
}
