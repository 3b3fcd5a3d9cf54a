//! The names of the metrics, for configuring a recorder. What they mean is in the README.

use metrics::{Unit, describe_counter, describe_histogram};

/// Histogram: seconds from the call to its end.
pub const DURATION: &str = "storage_operation_duration_seconds";
/// Counter: operations that succeeded.
pub const SUCCESSES: &str = "storage_operation_successes_total";
/// Counter: operations that failed, by kind.
pub const ERRORS: &str = "storage_operation_errors_total";
/// Counter: operations that were dropped before their end.
pub const CANCELLATIONS: &str = "storage_operation_cancellations_total";
/// Counter: bytes of values that came out.
pub const BYTES_READ: &str = "storage_read_bytes_total";
/// Counter: bytes of values that went in.
pub const BYTES_WRITTEN: &str = "storage_written_bytes_total";

/// Every name.
pub const ALL: [&str; 6] = [DURATION, SUCCESSES, ERRORS, CANCELLATIONS, BYTES_READ, BYTES_WRITTEN];

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "From the call of a storage operation to its end, its stream included."
    );
    describe_counter!(SUCCESSES, "Storage operations that succeeded.");
    describe_counter!(ERRORS, "Storage operations that failed, by kind of error.");
    describe_counter!(CANCELLATIONS, "Storage operations whose call or stream was dropped before its end.");
    describe_counter!(BYTES_READ, Unit::Bytes, "Bytes of values that storage operations delivered.");
    describe_counter!(BYTES_WRITTEN, Unit::Bytes, "Bytes of values that storage operations wrote.");
}
