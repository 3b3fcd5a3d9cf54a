//! The only place where an error of Azure becomes an [`ErrorKind`]. What has no code of Azure is explained by its status.

use storage_core::{Error, ErrorKind};
use storage_object_store::http::{self, Refusal, Service};

use crate::config::wrong;

/// Azure, and how its answers are known.
pub(crate) static AZURE: Service = {
    let mut service = Service::new("Azure");
    service.marks = &["x-ms-request-id", "x-ms-version", "x-ms-error-code", "x-ms-copy-status"];
    service.absent = &["BlobNotFound", "ResourceNotFound", "CannotVerifyCopySource"];
    service.etags = true;
    service
};

/// What a refusal means, and which setting to change. Codes of absent blobs and of conditions are left to `object_store`, which
/// knows what was asked.
pub(crate) fn explain(refusal: &Refusal) -> Option<(ErrorKind, String)> {
    use ErrorKind as Kind;
    let (kind, message) = match refusal.code.as_str() {
        "ContainerNotFound" => {
            (Kind::NotFound, "the container does not exist; create it, or correct `container` or `account`")
        }
        "ContainerBeingDeleted" => (
            Kind::Unavailable,
            "the container is being deleted; wait until it can be created again, or correct `container`",
        ),
        "InvalidResourceName" | "InvalidUri" | "OutOfRangeInput" => {
            (Kind::Config, "the account takes no such name; correct `container` or `endpoint`")
        }
        "AuthenticationFailed" => (Kind::Unauthenticated, NOT_KNOWN),
        // What the emulator says of a wrong key.
        "AuthorizationFailure" if refusal.message.contains("failed to authenticate") => {
            (Kind::Unauthenticated, NOT_KNOWN)
        }
        "InvalidAuthenticationInfo" | "NoAuthenticationInformation" | "MissingRequiredHeader" => {
            (Kind::Unauthenticated, "the account needs credentials; set `account_key` or `sas`, or correct them")
        }
        "AccountIsDisabled" => (Kind::PermissionDenied, "the account is disabled; enable it, or correct `account`"),
        "KeyBasedAuthenticationNotPermitted" => {
            (Kind::PermissionDenied, "the account takes no account keys; set `sas`, or allow keys in the account")
        }
        "PublicAccessNotPermitted" => {
            (Kind::PermissionDenied, "the account answers nobody without credentials; set `account_key` or `sas`")
        }
        "ContainerDisabled" | "InsufficientAccountPermissions" => (Kind::PermissionDenied, NO_RIGHT),
        code if code.starts_with("Authorization") => (Kind::PermissionDenied, NO_RIGHT),
        "LeaseIdMissing" | "LeaseAlreadyPresent" => {
            (Kind::Conflict, "somebody holds a lease on the blob; try again when it has ended")
        }
        "PendingCopyOperation" => {
            (Kind::Conflict, "the blob is being copied to at the moment; try again when that has ended")
        }
        // Whoever writes a blob throws away the parts that others have sent for it.
        "InvalidBlockList" | "InvalidBlobOrBlock" | "InvalidBlockId" => {
            (Kind::Conflict, "another write of the same key ended the upload; write the value again")
        }
        "SnapshotsPresent" => {
            (Kind::PermissionDenied, "the blob has snapshots, which are not deleted here; delete them first")
        }
        "BlobImmutableDueToPolicy" => (Kind::PermissionDenied, "a policy of the container keeps the blob as it is"),
        "BlobArchived" | "BlobBeingRehydrated" => {
            (Kind::PermissionDenied, "the blob is in the archive; move it to another tier, and wait until it is there")
        }
        "InvalidBlobType" => (Kind::Unsupported, "there is a blob of another type under this name; delete it first"),
        "RequestBodyTooLarge" => (Kind::TooLarge, "the account takes no value of this size in one request"),
        "MetadataTooLarge" => (Kind::TooLarge, "the account takes no metadata of this size"),
        "ServerBusy" => (Kind::RateLimited, "the account takes no more requests at the moment; make fewer"),
        "OperationTimedOut" => (Kind::Timeout, "the request took the account too long; try again"),
        "UnsupportedHeader" | "UnsupportedHttpVerb" | "FeatureNotSupported" | "APINotImplemented" => {
            (Kind::Unsupported, "the account cannot do this")
        }
        _ => return None,
    };
    Some((kind, message.to_owned()))
}

const NOT_KNOWN: &str = "the account does not accept the credentials; correct `account_key`, `sas` or `account`, renew a signature \
                         that has expired, and check the clock of this machine";
const NO_RIGHT: &str =
    "the credentials have no right to do this; grant it, or correct `sas`, `account_key` or `container`";

/// An account that has no address is one that does not exist, if its address was made of its name.
pub(crate) fn no_account(error: Error, account: &str) -> Error {
    if error.kind() != ErrorKind::Unavailable || error.is_ambiguous() {
        return error;
    }
    let message = format!("the account `{account}` cannot be reached; check `account` and the network");
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// Settings that object_store does not take.
pub(crate) fn build(error: object_store::Error) -> Error {
    wrong("invalid client configuration (see source)".to_owned()).with_source(error)
}

/// Credentials that the application could not provide.
pub(crate) fn no_credentials(error: object_store::Error) -> Error {
    let message = "the application provides no usable credentials; see the cause, or correct `credentials`";
    http::no_credentials(error, message)
}

/// An answer that is not what Azure answers.
pub(crate) fn malformed_response(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    AZURE.malformed_response(cause)
}
