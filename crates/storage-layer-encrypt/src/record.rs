//! How a wrapping key is stored. Its description is in `docs/encryption.md`.

use data_encoding::HEXLOWER;
use storage_config::WrappedKey;
use storage_core::{Error, ErrorKind, Result};

/// The most bytes of a record.
pub(crate) const MAX: u64 = FIXED as u64 + 255 + 65_535;

const MAGIC: [u8; 4] = *b"STK\x01";
const FIXED: usize = 7;

/// The name of the record of a wrapping key, by its sequence number: bytewise order is the order of numbers.
pub(crate) fn id(number: u16, chance: [u8; 8]) -> String {
    format!("{number:04x}-{}", HEXLOWER.encode(&chance))
}

/// The number in an id; `None` for what is none.
pub(crate) fn number(id: &str) -> Option<u16> {
    let (number, chance) = id.split_once('-')?;
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    (hex(number, 4) && hex(chance, 16)).then(|| u16::from_str_radix(number, 16).ok())?
}

/// What the wrapping of a wrapping key is bound to: the format and its name.
pub(crate) fn context(id: &str) -> Vec<u8> {
    [&MAGIC, id.as_bytes()].concat()
}

pub(crate) fn encode(wrapped: &WrappedKey) -> Result<Vec<u8>> {
    let (id, key) = (wrapped.key_id.as_bytes(), &wrapped.wrapped);
    let lengths = u8::try_from(id.len()).ok().filter(|n| *n > 0).zip(u16::try_from(key.len()).ok());
    let (n, m) = lengths.ok_or_else(|| {
        Error::new(ErrorKind::Config, "the key provider's key id has 1 to 255 bytes, its wrapped key at most 65,535")
    })?;
    Ok([&MAGIC[..], &[n], &m.to_be_bytes(), id, key].concat())
}

pub(crate) fn decode(record: &[u8]) -> Result<WrappedKey> {
    let foreign =
        || Error::new(ErrorKind::Corrupt, "what is stored is not the record of a wrapping key, or was changed");
    let (fixed, rest) = record.split_at_checked(FIXED).ok_or_else(foreign)?;
    let (n, m) = (usize::from(fixed[4]), usize::from(u16::from_be_bytes([fixed[5], fixed[6]])));
    if fixed[..4] != MAGIC || n == 0 || rest.len() != n + m {
        return Err(foreign());
    }
    let (id, wrapped) = rest.split_at(n);
    let key_id = std::str::from_utf8(id).map_err(|_| foreign())?.to_owned();
    Ok(WrappedKey { key_id, wrapped: wrapped.to_vec() })
}
