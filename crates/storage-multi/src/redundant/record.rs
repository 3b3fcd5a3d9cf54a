//! What a store holds beside a value: which write it is of, and the digest.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::digest::{SHA256, digest};
use storage_core::{Buffer, Error, ErrorKind, Etag, FieldValue, Metadata, Result};

use crate::names::OWN;

/// The content type of what stands for a deleted value.
const DELETED: &str = "application/vnd.storage-multi.deleted";
/// The most bytes that the record takes in the metadata.
pub(super) const OVERHEAD: usize = 256;

/// Which of two writes is the newer: time, and the instance that wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteId {
    /// Microseconds since 1970 by a clock that never goes back.
    pub(super) micros: u64,
    /// Of the instance: random.
    pub(super) node: u64,
}

impl WriteId {
    /// Before every write: of values that others put into the store.
    pub(super) const FOREIGN: Self = Self { micros: 0, node: 0 };

    fn parse(text: &str) -> Option<Self> {
        let half = |part: Option<&str>| u64::from_str_radix(part?, 16).ok();
        Some(Self { micros: half(text.get(..16))?, node: half(text.get(16..32))? })
    }

    pub(super) fn etag(self) -> Etag {
        Etag::new(self.to_string())
    }
}

impl fmt::Display for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.micros, self.node)
    }
}

/// The record of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: WriteId,
    /// When the key was first written, as the id tells time.
    pub(super) created: u64,
    /// SHA-256 in hexadecimal digits; `None` for a value that was streamed.
    pub(super) digest: Option<String>,
    /// It stands for the absence of a value.
    pub(super) deleted: bool,
}

impl Record {
    /// The user's metadata with the record.
    pub(super) fn attach(&self, metadata: Option<&Metadata>) -> Arc<Metadata> {
        let mut metadata = metadata.cloned().unwrap_or_default();
        if self.deleted {
            metadata.content_type = Some(DELETED.into());
        }
        let digest = self.digest.as_deref().unwrap_or("-");
        let what = if self.deleted { "deleted" } else { "value" };
        Arc::new(OWN.attach(metadata, format!("1 {} {:x} {digest} {what}", self.id, self.created)))
    }

    /// The user's metadata, and the record; `None` for a value that others stored.
    ///
    /// # Errors
    /// `Corrupt` when there is a record that cannot be read.
    pub(super) fn detach(metadata: &Arc<Metadata>) -> Result<(Arc<Metadata>, Option<Self>)> {
        let Some(field) = OWN.field(metadata) else { return Ok((metadata.clone(), None)) };
        let record = match field {
            FieldValue::String(text) => Self::parse(text),
            _ => None,
        };
        let what = "the record of the value is not readable; write the value again";
        let record = record.ok_or_else(|| Error::new(ErrorKind::Corrupt, what))?;
        Ok((Arc::new(OWN.detach(Metadata::clone(metadata))), Some(record)))
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let ["1", id, created, digest, what] = parts.as_slice() else { return None };
        Some(Self {
            id: WriteId::parse(id)?,
            created: u64::from_str_radix(created, 16).ok()?,
            digest: (*digest != "-").then(|| (*digest).to_owned()),
            deleted: match *what {
                "deleted" => true,
                "value" => false,
                _ => return None,
            },
        })
    }
}

/// The digest of a whole value.
pub(super) fn digest_of(value: &Buffer) -> String {
    let digest = match value.pieces() {
        [one] => digest(&SHA256, one),
        pieces => {
            let mut context = ring::digest::Context::new(&SHA256);
            pieces.iter().for_each(|piece| context.update(piece));
            context.finish()
        }
    };
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_the_users_fields_stay() {
        let id = WriteId { micros: 77, node: u64::MAX };
        let record = Record { id, created: 3, digest: Some(digest_of(&Buffer::default())), deleted: false };
        let users =
            Metadata::new().field("storage.multi", 1).field("storage.multi'", true).field("other", "x").tag("t");
        let (plain, read) = Record::detach(&record.attach(Some(&users))).unwrap();
        assert_eq!((&*plain, read.as_ref()), (&users, Some(&record)));
        assert!(record.attach(None).to_json().len() < OVERHEAD);
        assert_eq!(Record::detach(&Arc::new(users.clone())).unwrap_err().kind(), ErrorKind::Corrupt);
        let older = WriteId { micros: 76, node: u64::MAX };
        assert!(older < id && older.to_string() < id.to_string() && WriteId::FOREIGN < older);
    }
}
