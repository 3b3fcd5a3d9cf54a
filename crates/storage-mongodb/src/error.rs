//! The only place where the driver's and the server's errors become kinds.
//!
//! No text of the server goes into a message or a source: it may repeat values, and the driver adds the raw reply.

use std::fmt;

use mongodb::{
    bson::Document,
    error::{ErrorKind as Driver, UNKNOWN_TRANSACTION_COMMIT_RESULT},
};
use storage_core::{Error, ErrorKind};

/// The number of a server's error, which is the source of what it became.
#[derive(Debug)]
struct Code(i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error code {} of the server", self.0)
    }
}

impl std::error::Error for Code {}

type Meaning = (ErrorKind, &'static str);

const BROKEN: &str = "the connection to the server broke; try again when it is back";
const FASTER: &str = "write conflict: another transaction committed first; retry the transaction";
const SLOW: &str = "the server did not answer in time; try again, or raise `timeout`";

/// What the driver failed with.
pub(crate) fn from_driver(e: &mongodb::error::Error) -> Error {
    let (kind, message) = match &*e.kind {
        Driver::Command(e) => return from_code(e.code),
        Driver::Authentication { .. } => (ErrorKind::Unauthenticated, UNKNOWN),
        Driver::ServerSelection { .. } => (ErrorKind::Unavailable, UNREACHABLE),
        Driver::DnsResolve { .. } => {
            (ErrorKind::Unavailable, "the name of the server cannot be resolved; check the URI")
        }
        Driver::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => (ErrorKind::Unavailable, UNREACHABLE),
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => (ErrorKind::Unavailable, BROKEN),
        Driver::Shutdown => return Error::closed(),
        Driver::InvalidTlsConfig { .. } => {
            (ErrorKind::Config, "the settings of TLS are not usable; check the files they name")
        }
        Driver::InvalidArgument { .. } => (ErrorKind::Config, "the URI is not one that the MongoDB driver can use"),
        Driver::IncompatibleServer { .. } | Driver::SessionsNotSupported => {
            (ErrorKind::Config, "the server is too old; MongoDB 4.4 or newer is needed")
        }
        Driver::InvalidResponse { .. } => return unreadable(),
        Driver::Transaction { .. } => (ErrorKind::Conflict, FASTER),
        _ => (ErrorKind::Other, "the database driver failed"),
    };
    Error::new(kind, message)
}

const UNKNOWN: &str = "the server does not accept user and password; check them and `authSource` in the URI";
const UNREACHABLE: &str =
    "no server can be reached that takes writes; check the address and `replicaSet`, and that it runs";

/// What a code of the server means, <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>.
pub(crate) fn from_code(code: i32) -> Error {
    let (kind, message): Meaning = match code {
        11 | 18 => (ErrorKind::Unauthenticated, UNKNOWN),
        13 => (ErrorKind::PermissionDenied, "the user may not do that; grant it the role `readWrite` on the database"),
        // A write conflict, a transaction that is gone, a snapshot that is not to be had any more, a lock.
        112 | 251 | 24 | 225 | 239 | 246 | 267 | 11000 => (ErrorKind::Conflict, FASTER),
        50 | 262 | 202 => (ErrorKind::Timeout, SLOW),
        64 | 79 | 100 => (ErrorKind::Unavailable, "the write was not confirmed by enough members of the replica set"),
        6 | 7 | 89 | 91 | 189 | 9001 | 10107 | 10058 | 11600 | 11602 | 13435 | 13436 | 134 | 133 => {
            (ErrorKind::Unavailable, "the server is shutting down or another member takes over; try again")
        }
        43 => (ErrorKind::Unavailable, "the server forgot the listing; try again"),
        10334 | 17280 | 17419 | 17420 => {
            (ErrorKind::TooLarge, "the document is larger than the 16 MiB that the server takes")
        }
        14031 => (ErrorKind::Unavailable, "the server's disk is full; free some space"),
        20 | 263 => (ErrorKind::Unsupported, "the server has no transactions"),
        26 => (ErrorKind::NotFound, "the collection is missing; connect again to create it"),
        _ => (ErrorKind::Other, "the server refused the command"),
    };
    Error::new(kind, message).with_source(Code(code))
}

pub(crate) fn is_said_by_server(e: &mongodb::error::Error) -> bool {
    matches!(&*e.kind, Driver::Command(_))
}

/// What ended a transaction that may be run again as a whole.
pub(crate) fn transient(e: &mongodb::error::Error) -> Error {
    let cause = from_driver(e);
    match cause.kind() {
        ErrorKind::Conflict => cause,
        _ => Error::new(
            ErrorKind::Conflict,
            "the server ended the transaction, and nothing of it was done; run it again",
        )
        .with_source(cause),
    }
}

/// Whether the server has refused before doing anything.
pub(crate) fn is_definite(e: &mongodb::error::Error) -> bool {
    match &*e.kind {
        Driver::Command(e) => !matches!(e.code, 50 | 64 | 91 | 189 | 11600 | 11602 | 10107 | 13435 | 9001 | 262 | 79),
        // The pool's error tells of a connection that another call had.
        Driver::Io(_)
        | Driver::InvalidResponse { .. }
        | Driver::ConnectionPoolCleared { .. }
        | Driver::Internal { .. } => false,
        _ => true,
    }
}

/// Whether a commit may have been done, and is to be made again. One that the server has given up for want of time is not.
pub(crate) fn may_be_committed(e: &mongodb::error::Error) -> bool {
    let is_out_of_time = matches!(&*e.kind, Driver::Command(e) if e.code == 50);
    e.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) && !is_out_of_time
}

pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Unavailable, "the answer of the server is not readable")
}

pub(crate) fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, SLOW)
}

/// What an answer to a write says beside what it did.
pub(crate) fn write_concern(answer: &Document) -> Option<Error> {
    let code = answer.get_document("writeConcernError").ok()?.get_i32("code").unwrap_or(64);
    let e = from_code(code);
    Some(match e.kind() {
        ErrorKind::Other => from_code(64),
        _ => e,
    })
}

/// The errors of single statements of a write, by their index.
pub(crate) fn write_errors(answer: &Document) -> Vec<(usize, i32)> {
    let errors = answer.get_array("writeErrors").into_iter().flatten().filter_map(|e| e.as_document());
    errors.map(|e| (e.get_i32("index").unwrap_or(0) as usize, e.get_i32("code").unwrap_or(0))).collect()
}
