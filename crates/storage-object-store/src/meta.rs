//! How metadata is stored with a value: as an attribute of the object, or in a header before the value.
//!
//! A store that keeps attributes gets the canonical JSON as base64url in one of them, which is ASCII, so that every HTTP header
//! takes it. Others get it in a header of fixed size, so that the size of the value follows from the size of the object.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use object_store::{Attribute, Attributes};
use storage_core::{Error, ErrorKind, Etag, Metadata, Result};

/// The attribute that holds the metadata. Objects of others do not have it.
pub(crate) const ATTRIBUTE: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("storage"));
/// The attribute by which an upload by parts is known again. A name that every cloud takes: Azure wants an identifier, and Ceph changes
/// underscores.
pub(crate) const UPLOAD: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("storageid"));
/// The most bytes of metadata in an attribute: as base64, and with that of an upload, they stay below the 2 KiB
/// that S3 allows for all of them.
pub(crate) const ATTRIBUTE_LIMIT: usize = 1500;
/// The bytes of a header.
pub(crate) const HEADER: u64 = 2048;
/// The most bytes of metadata in a header.
pub(crate) const HEADER_LIMIT: usize = HEADER as usize - JSON;

const MAGIC: &[u8; 8] = b"storage\x01";
/// Where the parts of a header begin, behind the magic number.
const TOKEN: usize = MAGIC.len();
const LENGTH: usize = TOKEN + 16;
const JSON: usize = LENGTH + 2;

/// Metadata as attributes. A media type is also said in the store's own way, where a header can hold it.
pub(crate) fn attributes(metadata: &Metadata) -> Attributes {
    let mut attributes = Attributes::new();
    let text = BASE64URL_NOPAD.encode(metadata.to_json().as_bytes());
    attributes.insert(ATTRIBUTE, text.into());
    if let Some(media_type) = &metadata.content_type {
        let printable = media_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if printable && media_type.trim() == media_type && !media_type.is_empty() {
            attributes.insert(Attribute::ContentType, media_type.clone().into());
        }
    }
    attributes
}

/// The metadata in attributes, which is empty for an object of others.
pub(crate) fn from_attributes(attributes: &Attributes) -> Result<Arc<Metadata>> {
    let Some(text) = attributes.get(&ATTRIBUTE) else {
        return Ok(Arc::default());
    };
    let json = BASE64URL_NOPAD
        .decode(text.as_ref().as_bytes())
        .map_err(|e| corrupt("the metadata attribute `storage` is not base64").with_source(e))?;
    parse(&json)
}

/// A token that no other write gets: the time, and chance for those at the same moment.
pub(crate) fn token() -> [u8; 16] {
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    (u128::from(nanos) << 64 | u128::from(fastrand::u64(..))).to_be_bytes()
}

/// A mark for an upload, which no other upload gets: 22 characters.
pub(crate) fn mark() -> Etag {
    Etag::from(BASE64URL_NOPAD.encode(&token()))
}

/// A token as text.
pub(crate) fn text(token: &[u8; 16]) -> String {
    HEXLOWER.encode(token)
}

/// The header of a value, for metadata of at most [`HEADER_LIMIT`] bytes: magic number, token of this write, length of the JSON
/// as two bytes (big end first), JSON, zeros.
pub(crate) fn header(metadata: &Metadata, token: &[u8; 16]) -> Result<Bytes> {
    let json = metadata.to_json();
    let length = u16::try_from(json.len()).unwrap_or(u16::MAX);
    if json.len() > HEADER_LIMIT {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the metadata has {} bytes, the most is {HEADER_LIMIT}", json.len()),
        ));
    }
    let mut header = Vec::with_capacity(HEADER as usize);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(token);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(json.as_bytes());
    header.resize(HEADER as usize, 0);
    Ok(header.into())
}

/// What a header says: the token as an etag, and the metadata.
pub(crate) fn from_header(header: &[u8]) -> Result<(Etag, Arc<Metadata>)> {
    if header.len() as u64 != HEADER || !header.starts_with(MAGIC) {
        return Err(foreign());
    }
    let length = usize::from(u16::from_be_bytes([header[LENGTH], header[LENGTH + 1]]));
    let json = header.get(JSON..JSON + length).ok_or_else(foreign)?;
    let etag = HEXLOWER.encode(&header[TOKEN..LENGTH]);
    Ok((Etag::from(etag), parse(json)?))
}

fn parse(json: &[u8]) -> Result<Arc<Metadata>> {
    let json = std::str::from_utf8(json).map_err(|e| corrupt("the stored metadata is not UTF-8").with_source(e))?;
    Metadata::from_json(json).map(Arc::new)
}

/// The error of an object that begins with something else than a header.
pub(crate) fn foreign() -> Error {
    corrupt("the object has no header of ours; it was put there, or damaged, by something else")
}

fn corrupt(message: &str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [Metadata; 4] {
        [
            Metadata::new(),
            Metadata::new().content_type("text/plain").tag("ünï"),
            Metadata::new().content_type(" \n😀").field("π", 3.0).field("n", 3),
            Metadata::new().tag("x".repeat(ATTRIBUTE_LIMIT - 13)),
        ]
    }

    #[test]
    fn metadata_round_trips_both_ways() {
        for metadata in samples() {
            assert!(metadata.size() <= ATTRIBUTE_LIMIT);
            let attributes = attributes(&metadata);
            let upload = "storageid".len() + mark().as_str().len();
            let ascii = |text: &str| text.is_ascii() && text.len() + "storage".len() + upload <= 2048;
            assert!(attributes.iter().all(|(_, value)| ascii(value.as_ref())));
            assert_eq!(*from_attributes(&attributes).unwrap(), metadata);

            let token = token();
            let header = header(&metadata, &token).unwrap();
            assert_eq!(header.len() as u64, HEADER);
            let (etag, read) = from_header(&header).unwrap();
            assert_eq!((etag.as_str(), &*read), (text(&token).as_str(), &metadata));
        }
    }

    #[test]
    fn the_largest_header_is_full() {
        let metadata = |n: usize| Metadata::new().tag("x".repeat(n - Metadata::new().tag("").size()));
        assert!(header(&metadata(HEADER_LIMIT), &token()).is_ok());
        let error = header(&metadata(HEADER_LIMIT + 1), &token()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn damage_is_corrupt_and_never_a_panic() {
        let good = header(&samples()[1], &token()).unwrap().to_vec();
        for at in (0..TOKEN).chain(LENGTH..JSON) {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            assert_eq!(from_header(&bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        for length in 0..good.len() {
            assert!(from_header(&good[..length]).is_err());
        }
        let mut foreign = Attributes::new();
        foreign.insert(ATTRIBUTE, "not base64!".into());
        assert_eq!(from_attributes(&foreign).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(from_attributes(&Attributes::new()).unwrap().is_empty());
    }
}
