//! The only place where an error of S3 becomes an [`ErrorKind`]. What has no code of S3 is explained by its status.

use storage_core::{Error, ErrorKind};
use storage_object_store::http::{self, Refusal, Service};

use crate::config::wrong;

/// S3, and how its answers are known. Every server that speaks its protocol names its requests in the first of the headers, or in none.
pub(crate) static S3: Service = {
    let mut service = Service::new("S3");
    service.marks = &["x-amz-request-id", "x-amz-id-2"];
    service.absent = &["NoSuchKey", "NoSuchVersion", "NoSuchObject", "NotFound"];
    service
};

/// What a refusal means, and which setting to change.
pub(crate) fn explain(refusal: &Refusal) -> Option<(ErrorKind, String)> {
    use ErrorKind as Kind;
    let (kind, message) = match refusal.code.as_str() {
        "NoSuchBucket" => (Kind::NotFound, "the bucket does not exist; create it, or correct `bucket` or `endpoint`"),
        "InvalidBucketName" => (Kind::Config, "no bucket can have this name; correct `bucket`"),
        // Ceph's words for a key of KMS that is not there.
        "InvalidAccessKeyId" if refusal.message.contains("kms") => (Kind::Config, KMS),
        "InvalidAccessKeyId" => {
            (Kind::Unauthenticated, "the store does not know the access key; correct `access_key_id` or `endpoint`")
        }
        "SignatureDoesNotMatch" => {
            (Kind::Unauthenticated, "the secret does not belong to the access key; correct `secret_access_key`")
        }
        "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired" => {
            (Kind::Unauthenticated, "the credentials have expired; renew them and their `session_token`")
        }
        "InvalidToken" => (Kind::Unauthenticated, "the store does not accept the token; correct `session_token`"),
        "RequestTimeTooSkewed" => {
            (Kind::Unauthenticated, "the clock of this machine is wrong, so that signatures do not hold; set it right")
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "AccessForbidden" => (
            Kind::PermissionDenied,
            "the credentials have no right to do this; grant it on the bucket, or correct `bucket` or `access_key_id`",
        ),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "IllegalLocationConstraintException" => return Some((Kind::Config, elsewhere(refusal))),
        "SlowDown" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "TooManyRequests" => {
            (Kind::RateLimited, "the store takes no more requests at the moment; make fewer")
        }
        "RequestTimeout" => (Kind::Timeout, "the store waited too long for the request; try again"),
        "EntityTooLarge" => (Kind::TooLarge, "the store takes no value of this size in one request"),
        "EntityTooSmall" => {
            (Kind::Config, "the store takes no parts of this size; raise `part_size` to 5 MiB at least")
        }
        "InvalidRequest" if refusal.message.contains("copy source is larger") => {
            (Kind::TooLarge, "the store copies no value of this size in one request")
        }
        "KeyTooLongError" => (Kind::InvalidKey, "the store takes no key of this length; shorten it or `prefix`"),
        "ConditionalRequestConflict" | "OperationAborted" | "ConcurrentModification" => {
            (Kind::Conflict, "another write of the same key was under way; try again")
        }
        "NoSuchUpload" => (Kind::Conflict, "somebody has aborted the upload; write the value again"),
        "InvalidArgument" if refusal.message.to_ascii_lowercase().contains("version") => {
            (Kind::NotFound, "there is no such version")
        }
        "InvalidEncryptionAlgorithmError" => (Kind::Config, "the store has no such encryption; correct `encryption`"),
        code if code.starts_with("KMS.") => (Kind::Config, KMS),
        "NotImplemented" | "MethodNotAllowed" => (
            Kind::Unsupported,
            "the store cannot do this; if it is the encryption that it cannot, set `encryption=none`",
        ),
        "" => return by_status(refusal),
        _ => return None,
    };
    Some((kind, message.to_owned()))
}

const KMS: &str = "the key management service refuses; correct `kms_key`, or grant the credentials its use";

/// Answers to HEAD have no body, and so no code.
fn by_status(refusal: &Refusal) -> Option<(ErrorKind, String)> {
    let (kind, message) = match refusal.status {
        300 | 301 | 302 | 307 | 308 => return Some((ErrorKind::Config, elsewhere(refusal))),
        400 => (
            ErrorKind::Unauthenticated,
            "the request was rejected as malformed (HTTP 400); renew the credentials and their `session_token`, or correct `region`",
        ),
        403 => (
            ErrorKind::PermissionDenied,
            "the store refuses access; check the rights of the credentials, and whether they have expired",
        ),
        _ => return None,
    };
    Some((kind, message.to_owned()))
}

fn elsewhere(refusal: &Refusal) -> String {
    let legal = |region: &&String| region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match refusal.region.as_ref().filter(legal) {
        Some(region) => format!("the bucket is in another region; set `region` to `{region}`"),
        None => "the bucket is in another region or at another server; correct `region` or `endpoint`".to_owned(),
    }
}

/// Settings that object_store does not take.
pub(crate) fn build(error: object_store::Error) -> Error {
    wrong("invalid client configuration (see source)".into()).with_source(error)
}

/// No credentials, or none that could be had.
pub(crate) fn no_credentials(error: object_store::Error) -> Error {
    let message = "no credentials were found; set `access_key_id` and `secret_access_key`, or `AWS_ACCESS_KEY_ID` and \
                   `AWS_SECRET_ACCESS_KEY` in the environment";
    http::no_credentials(error, message)
}

/// An answer that is not what S3 answers.
pub(crate) fn malformed_response(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    S3.malformed_response(cause)
}
