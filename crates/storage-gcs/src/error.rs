//! The only place where an error of Google becomes an [`ErrorKind`]. What has no code of Google is explained by its status.

use storage_core::{Error, ErrorKind};
use storage_object_store::http::{self, Refusal, Service};

use crate::config::wrong;

/// Google, and how its answers are known.
pub(crate) static GOOGLE: Service = {
    let mut service = Service::new("Google's");
    service.marks = &["x-guploader-uploadid", "x-goog-generation", "x-goog-metageneration", "x-goog-hash"];
    service.absent = &["NoSuchKey", "NoSuchVersion"];
    service.etags = true;
    // It decodes what was stored as gzip, unless the request says that it takes that.
    service.stored_coding = Some("x-goog-stored-content-encoding");
    service
};

/// What a refusal means, and which setting to change. Codes of absent objects and of conditions are left to `object_store`, which
/// knows what was asked.
pub(crate) fn explain(refusal: &Refusal) -> Option<(ErrorKind, String)> {
    use ErrorKind as Kind;
    let (kind, message) = match refusal.code.as_str() {
        "NoSuchBucket" => (Kind::NotFound, "the bucket does not exist; create it, or correct `bucket` or `endpoint`"),
        "InvalidBucketName" => (Kind::Config, "no bucket can have this name; correct `bucket`"),
        "AuthenticationRequired" => (
            Kind::Unauthenticated,
            "the store does not accept the credentials, or needs some; correct `service_account_file`, or renew the token",
        ),
        "ExpiredToken" | "InvalidToken" | "InvalidSecurity" | "MissingSecurityHeader" | "MissingSecurityElement" => (
            Kind::Unauthenticated,
            "the store does not accept the token; renew it, correct `service_account_file`, and check the clock of this machine",
        ),
        "AccessDenied" => (
            Kind::PermissionDenied,
            "the credentials have no right to do this; grant it on the bucket, or correct `bucket` or the credentials",
        ),
        "AccountProblem" | "AccountDisabled" | "UserProjectAccountProblem" | "ProjectAccountProblem" => (
            Kind::PermissionDenied,
            "the project or account cannot be used, for its billing or because it is disabled; set it right with Google",
        ),
        "UserProjectMissing" | "UserProjectInconsistent" => {
            (Kind::Unsupported, "requester-pays buckets are not supported")
        }
        "RetentionPolicyNotMet" | "ObjectUnderActiveHold" | "ForbiddenByBucketPolicy" => {
            (Kind::PermissionDenied, "a policy or a hold of the bucket keeps the object as it is")
        }
        "SlowDown" | "TooManyRequests" => (
            Kind::RateLimited,
            "the store takes no more requests at the moment, or no more writes of this key, of which it takes one a second; make fewer",
        ),
        "RequestTimeout" => (Kind::Timeout, "the store waited too long for the request; try again"),
        "EntityTooLarge" => (Kind::TooLarge, "the store takes no value of this size in one request"),
        "EntityTooSmall" => {
            (Kind::Config, "the store takes no parts of this size; raise `part_size` to 5 MiB at least")
        }
        "MetadataTooLarge" => (Kind::TooLarge, "the store takes no metadata of this size"),
        "KeyTooLong" => (Kind::InvalidKey, "the store takes no key of this length; shorten it or `prefix`"),
        "InvalidObjectName" => (Kind::InvalidKey, "the store takes no such name; change the key or `prefix`"),
        "NoSuchUpload" => (Kind::Conflict, "somebody has aborted the upload; write the value again"),
        "NotImplemented" | "MethodNotAllowed" => (Kind::Unsupported, "the store cannot do this"),
        "" => return by_status(refusal),
        _ => return None,
    };
    Some((kind, message.to_owned()))
}

/// Answers to HEAD have no body, and so no code; those of the servers that hand out tokens have codes of their own.
fn by_status(refusal: &Refusal) -> Option<(ErrorKind, String)> {
    let (kind, message) = match refusal.status {
        400 => (
            ErrorKind::Unauthenticated,
            "the request or the token request was rejected as malformed (HTTP 400); renew or correct the credentials",
        ),
        403 => (
            ErrorKind::PermissionDenied,
            "the store refuses access; check the rights of the credentials, and whether they have expired",
        ),
        _ => return None,
    };
    Some((kind, message.to_owned()))
}

/// Settings that object_store does not take.
pub(crate) fn build(error: object_store::Error) -> Error {
    wrong("invalid client configuration (see source)".into()).with_source(error)
}

/// No credentials, or none that could be had.
pub(crate) fn no_credentials(error: object_store::Error) -> Error {
    let message = "no credentials were found, or they are not accepted; set `service_account_file`, `credentials` or `anonymous`, or \
                   `GOOGLE_APPLICATION_CREDENTIALS` in the environment";
    http::no_credentials(error, message)
}

/// An answer that is not what Google answers.
pub(crate) fn malformed_response(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    GOOGLE.malformed_response(cause)
}
