//! Why a peer is faster, written after looking at what each of them does. A note shows only where the numbers call for it.

use crate::{
    groups::{DURABLE, MEMORY, OBJECT_STORE, OPENDAL, READS, RELAXED},
    subject::Operation::{self, Get, List, Put, Read, Stat, Write},
};

/// The reason, if somebody has looked for it.
pub(crate) fn why(group: &str, operation: Operation, library: &str) -> Option<&'static str> {
    NOTES.iter().find(|note| (note.0, note.1, note.2) == (group, operation, library)).map(|note| note.3)
}

const TREE: &str = "The reference implementation keeps a tree that can be shared with snapshots (`imbl::OrdMap`) \
where the peer has a `BTreeMap`, validates and copies the key, and hands out the whole entry with its metadata.";
const MEMORY_PUT: &str = "Every write gets a token that is never used again, formatted as text, and a time that \
never goes backwards, and looks the key up twice in a tree that can be shared with snapshots. All of this happens \
under the one lock that 16 tasks share.";
const PUT: &str = "The syncs are the same in number and time (traced). The rest are small system calls: 20 beside \
the 2 syncs, the peer makes 7. They lock the key for other processes, look up the value that is replaced, before the \
syncs and again under the lock, and keep metadata and etag in an extended attribute.";
const RELAXED_PUT: &str = "15 system calls, the peer makes 5. The others lock the key for other processes, look up \
the value that is replaced, resolve its directory below the root, and keep metadata and etag in an extended attribute.";
const STREAM: &str = "Both write the same bytes in as many hops to a blocking thread; a trace shows nothing that \
takes longer. Ours makes the small system calls of a put besides.";
const ATTRIBUTE: &str = "The entry has metadata, creation time and a unique etag, which take one more system call \
for the extended attribute, and the path is resolved strictly below the root (`openat2`).";
const DAL_STAT: &str = "The peer asks by path in two system calls and leaves the extended attributes' values alone \
where there are none; ours opens the file strictly below the root and reads attribute and size from the same opened \
file, lest they belong to different values.";
const LISTING: &str =
    "Each entry is opened for its etag (4 system calls, the peer makes 3 by path), and the listing is sorted by key.";

const NOTES: &[(&str, Operation, &str, &str)] = &[
    (MEMORY, Put, OBJECT_STORE, MEMORY_PUT),
    (MEMORY, Put, OPENDAL, MEMORY_PUT),
    (MEMORY, Get, OBJECT_STORE, TREE),
    (MEMORY, Stat, OBJECT_STORE, TREE),
    (MEMORY, Stat, OPENDAL, TREE),
    (MEMORY, Read, OBJECT_STORE, TREE),
    (
        MEMORY,
        Write,
        OPENDAL,
        "The peer keeps the caller's pieces as they are and copies nothing, here or later. Ours and object_store \
copy them into one piece, so that a get has the whole value at once and does not keep 16 larger buffers alive.",
    ),
    (
        MEMORY,
        Write,
        OBJECT_STORE,
        "Both copy the pieces into one; the copy and the memory for it are nearly all of the time.",
    ),
    (DURABLE, Put, OBJECT_STORE, PUT),
    (DURABLE, Write, OBJECT_STORE, STREAM),
    (RELAXED, Put, OBJECT_STORE, RELAXED_PUT),
    (RELAXED, Write, OBJECT_STORE, STREAM),
    (READS, Get, OBJECT_STORE, ATTRIBUTE),
    (READS, Stat, OBJECT_STORE, ATTRIBUTE),
    (READS, Stat, OPENDAL, DAL_STAT),
    (READS, List, OBJECT_STORE, LISTING),
    (
        READS,
        Read,
        OPENDAL,
        "The peer reads into buffers that it keeps, ours into new memory that has to be zeroed first.",
    ),
];
