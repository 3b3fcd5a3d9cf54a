//! The settings of encrypted connections, checked when connecting: the driver itself passes over some that have no effect, and
//! does not say which of the files is wrong.

use std::{fs, path::Path};

use storage_core::{Error, ErrorKind, Result};

use crate::Config;

/// How the first line of a section in PEM ends, and what the section holds.
const CERTIFICATE: (&str, &str) = ("CERTIFICATE-----", "certificate");
const KEY: (&str, &str) = ("PRIVATE KEY-----", "private key");

/// Checks the files, given whether the connections will check the server's certificate.
///
/// # Errors
/// `Config` for files that cannot be read, that hold something else, or that would not be looked at.
pub(crate) fn check(config: &Config, verifies: bool) -> Result<()> {
    if let Some(path) = &config.sslrootcert {
        if !verifies {
            return Err(wrong(
                "with this `sslmode` nobody looks at the server's certificate; set it to `verify-full` (in MariaDB \
                 `verify_identity`), or leave out `sslrootcert`"
                    .into(),
            ));
        }
        holds("sslrootcert", path, CERTIFICATE)?;
    }
    match (&config.sslcert, &config.sslkey) {
        (Some(certificate), Some(key)) => {
            holds("sslcert", certificate, CERTIFICATE)?;
            holds("sslkey", key, KEY)
        }
        (None, None) => Ok(()),
        _ => Err(wrong("the options `sslcert` and `sslkey` go together; set both, or neither".into())),
    }
}

/// Whether the file of an option has a section of this kind.
fn holds(option: &str, path: &Path, (kind, what): (&str, &str)) -> Result<()> {
    let shown = path.display();
    let unreadable = |e| wrong(format!("the file {shown} of the option `{option}` cannot be read")).with_source(e);
    let content = fs::read(path).map_err(unreadable)?;
    let begins = |line: &[u8]| line.starts_with(b"-----BEGIN ") && line.trim_ascii_end().ends_with(kind.as_bytes());
    match content.split(|byte| *byte == b'\n').any(begins) {
        true => Ok(()),
        false => {
            Err(wrong(format!("the file {shown} of the option `{option}` holds no {what} in PEM; name one that does")))
        }
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
