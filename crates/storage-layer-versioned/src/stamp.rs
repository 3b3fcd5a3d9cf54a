//! What the layer notes in the metadata of what it stores.
//!
//! An older version has a stamp: what its entry said when it was the value. A value itself has none where the backend's
//! etags are unique, because they name the version; elsewhere it has a token.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use storage_core::{Entry, Error, ErrorKind, Etag, FieldValue, Metadata, Result, VersionId};

use crate::names::OWN;

/// The most bytes that a note takes in the metadata: field, dates, token, etag, and apostrophes.
pub(crate) const OVERHEAD: usize = 256;

/// The metadata with a note.
pub(crate) fn attach(metadata: Option<&Metadata>, note: &str) -> Metadata {
    OWN.attach(metadata.cloned().unwrap_or_default(), note)
}

/// The metadata without the note, and the note. What has none was written by others and stays as it is.
///
/// # Errors
/// `Corrupt` when there is a note that this layer did not write.
pub(crate) fn detach(metadata: &Arc<Metadata>) -> Result<(Arc<Metadata>, Option<String>)> {
    let note = match OWN.field(metadata) {
        None => return Ok((metadata.clone(), None)),
        Some(FieldValue::String(note)) => note,
        Some(_) => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the note of the version is not readable; write the value again",
            ));
        }
    };
    Ok((Arc::new(OWN.detach(Metadata::clone(metadata))), Some(note.clone())))
}

/// A token that no other write has, and that tells when it was made.
pub(crate) fn token() -> String {
    format!("{:016x}{:016x}", nanos(SystemTime::now()), fastrand::u64(..))
}

/// How old a token is by this machine's clock; `None` for what is none.
pub(crate) fn age(token: &str) -> Option<Duration> {
    let made = u64::from_str_radix(token.get(..16)?, 16).ok()?;
    Some(Duration::from_nanos(nanos(SystemTime::now()).saturating_sub(made)))
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The note on an older version: `MODIFIED CREATED VERSION ETAG`, the dates in nanoseconds since 1970 or `-`, the version `=` if
/// it is the etag. The etag is last, for it may contain spaces, and is left out if there is none.
pub(crate) fn write(entry: &Entry) -> String {
    let date = |time: Option<SystemTime>| time.map_or("-".to_owned(), |time| nanos(time).to_string());
    let etag = entry.etag.as_ref().map(Etag::as_str);
    let version = entry.version.as_ref().map(VersionId::as_str).filter(|version| Some(*version) != etag);
    let mut note = format!("{} {} {}", date(entry.modified), date(entry.created), version.unwrap_or("="));
    if let Some(etag) = etag {
        note.push(' ');
        note.push_str(etag);
    }
    note
}

/// Puts what a stamp says into the entry of an older version.
///
/// # Errors
/// `Corrupt` when this layer did not write it.
pub(crate) fn read(note: &str, entry: &mut Entry) -> Result<()> {
    let corrupt =
        || Error::new(ErrorKind::Corrupt, "the record of an older version is not readable; delete the version");
    let mut parts = note.splitn(4, ' ');
    let mut next = || parts.next().ok_or_else(corrupt);
    let date = |text: &str| match text {
        "-" => Ok(None),
        nanos => {
            let nanos = nanos.parse().map_err(|_| corrupt())?;
            Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)))
        }
    };
    entry.modified = date(next()?)?;
    entry.created = date(next()?)?;
    let version = next()?;
    entry.etag = parts.next().map(Etag::new);
    entry.version = match (version, &entry.etag) {
        ("=", Some(etag)) => Some(VersionId::new(etag.as_str())),
        ("=", None) => return Err(corrupt()),
        (version, _) => Some(VersionId::new(version)),
    };
    Ok(())
}
