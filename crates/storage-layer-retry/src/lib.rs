//! Storage layer that repeats what failed for a passing reason.
