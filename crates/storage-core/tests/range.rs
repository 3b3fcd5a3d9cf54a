//! Ranges at every edge.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_core::{ByteRange, ErrorKind};

const MAX: u64 = u64::MAX;

#[test]
fn clamped_at_the_end() {
    for (range, size, expected) in [
        (ByteRange::from(0..0), 0, 0..0),
        (ByteRange::from(0..5), 0, 0..0),
        (ByteRange::from(0..10), 10, 0..10),
        (ByteRange::from(0..11), 10, 0..10),
        (ByteRange::from(3..7), 10, 3..7),
        (ByteRange::from(3..3), 10, 3..3),
        (ByteRange::from(9..MAX), 10, 9..10),
        (ByteRange::from(10..10), 10, 10..10),
        (ByteRange::from(10..20), 10, 10..10),
        (ByteRange::from(..4), 10, 0..4),
        (ByteRange::from(..40), 10, 0..10),
        (ByteRange::from(0..), 0, 0..0),
        (ByteRange::from(4..), 10, 4..10),
        (ByteRange::from(10..), 10, 10..10),
        (ByteRange::from(0..MAX), MAX, 0..MAX),
        (ByteRange::from(MAX..), MAX, MAX..MAX),
        (ByteRange::Suffix(0), 10, 10..10),
        (ByteRange::Suffix(3), 10, 7..10),
        (ByteRange::Suffix(10), 10, 0..10),
        (ByteRange::Suffix(11), 10, 0..10),
        (ByteRange::Suffix(MAX), 10, 0..10),
        (ByteRange::Suffix(5), 0, 0..0),
    ] {
        assert_eq!(range.resolve(size).unwrap(), expected, "{range:?} of {size}");
    }
}

#[test]
fn a_start_beyond_the_end_is_not_satisfiable() {
    for (range, size) in [
        (ByteRange::from(11..12), 10),
        (ByteRange::from(11..11), 10),
        (ByteRange::from(1..), 0),
        (ByteRange::from(MAX..), 10),
    ] {
        let error = range.resolve(size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RangeNotSatisfiable, "{range:?} of {size}");
    }
}

#[test]
fn an_end_before_the_start_is_invalid() {
    for size in [0, 4, 10] {
        let error = ByteRange::Bounded(5, 4).resolve(size).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
