//! Why a peer is faster, written after looking at what each of them does. A note shows only where the numbers call for it.

use crate::{
    groups::{DURABLE, MEMORY, OBJECT_STORE, OPENDAL, READS, RELAXED},
    subject::Operation::{self, Get, List, Put, Read, Stat, Write},
};

/// The reason, if somebody has looked for it.
pub(crate) fn why(group: &str, operation: Operation, library: &str) -> Option<&'static str> {
    NOTES.iter().find(|note| (note.0, note.1, note.2) == (group, operation, library)).map(|note| note.3)
}

const NOTES: &[(&str, Operation, &str, &str)] = &[];
