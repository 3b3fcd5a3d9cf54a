//! Ranges that are a little off.

use storage_core::{ByteRange, Error, ErrorKind, GetOptions, Key, Object, Result, StatOptions, async_trait};

use super::{
    table,
    wrap::{Fault, Sides, whole},
};

table! {
    end_is_inclusive = Asks(|range, _| Ok(match range {
        ByteRange::Bounded(start, end) if end > start => ByteRange::Bounded(start, end.saturating_add(1)),
        other => other,
    })) => ["range/in_parallel", "conditional/read_conditions",
        "range/bounded",
        "range/random_of_a_large_value",
        "sizes/of_ranges",
        "stream/pipe",
        "versioning/old_can_be_read",
        "versioning/ranges_are_its_own",
    ];
    open_range_skips_one = Asks(|range, size| Ok(match range {
        ByteRange::From(start) if start > 0 && start < size => ByteRange::From(start + 1),
        other => other,
    })) => [
        "range/open",
        "range/random_of_a_large_value",
        "sizes/of_ranges",
        "versioning/ranges_are_its_own",
    ];
    suffix_of_a_short_value_fails = Asks(|range, size| match range {
        ByteRange::Suffix(n) if n > size && size > 0 => unsatisfiable(),
        other => Ok(other),
    }) => ["range/suffix", "sizes/of_ranges", "versioning/ranges_are_its_own"];
    beyond_the_end_is_empty = Asks(|range, size| Ok(match range {
        ByteRange::From(start) | ByteRange::Bounded(start, _) if start > size => ByteRange::Bounded(size, size),
        other => other,
    })) => ["errors/taxonomy", "range/beyond_end", "versioning/ranges_are_its_own"];
    at_the_end_fails = Asks(|range, size| match range {
        ByteRange::From(start) | ByteRange::Bounded(start, _) if start == size => unsatisfiable(),
        other => Ok(other),
    }) => [
        "range/at_end_is_empty",
        "range/full_size_reported",
        "range/of_an_empty_value",
        "range/random_of_a_large_value",
        "sizes/of_ranges",
        "versioning/ranges_are_its_own",
    ];
    end_is_not_clamped = Asks(|range, size| match range {
        ByteRange::Bounded(_, end) if end > size && size > 0 => unsatisfiable(),
        other => Ok(other),
    }) => [
        "range/at_end_is_empty",
        "range/clamped",
        "sizes/of_ranges",
        "versioning/ranges_are_its_own",
    ];
    range_stops_at_a_block = Asks(|range, _| Ok(match range {
        ByteRange::Bounded(start, end) => ByteRange::Bounded(start, end.min(start.next_multiple_of(65_536).max(65_536))),
        other => other,
    })) => ["range/in_parallel", "range/random_of_a_large_value", "sizes/of_ranges", "versioning/ranges_are_its_own"];
    a_range_to_the_end_of_a_block_lacks_a_byte = Asks(|range, size| Ok(match range {
        ByteRange::Bounded(start, end) if start < end && end < size && end % (256 << 10) == 0 => ByteRange::Bounded(start, end - 1),
        other => other,
    })) => ["sizes/of_ranges"];
    size_is_that_of_the_range = SizeOfTheRange => ["range/in_parallel", "range/bounded",
        "range/full_size_reported",
        "range/open",
        "range/random_of_a_large_value",
        "sizes/of_ranges",
        "stream/pipe",
        "versioning/old_can_be_read",
        "versioning/ranges_are_its_own",
    ];
}

fn unsatisfiable() -> Result<ByteRange> {
    Err(Error::new(ErrorKind::RangeNotSatisfiable, "the range does not fit the value"))
}

/// Asks for another range of a value of this size.
#[derive(Debug)]
struct Asks(fn(ByteRange, u64) -> Result<ByteRange>);

#[async_trait]
impl Fault for Asks {
    async fn get(&self, s: Sides<'_>, key: &Key, mut options: GetOptions) -> Result<Option<Object>> {
        let stat = StatOptions::new();
        if let Some(range) = options.range
            && let Some(entry) = s.inner.stat(key, stat).await?
        {
            options.range = Some((self.0)(range, entry.size)?);
        }
        s.inner.get(key, options).await
    }
}

#[derive(Debug)]
struct SizeOfTheRange;

#[async_trait]
impl Fault for SizeOfTheRange {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let ranged = options.range.is_some();
        let Some(mut object) = s.inner.get(key, options).await? else { return Ok(None) };
        let bytes = whole(object.body).await?;
        if ranged {
            object.entry.size = bytes.len() as u64;
        }
        Ok(Some(Object::new(object.entry, bytes)))
    }
}
