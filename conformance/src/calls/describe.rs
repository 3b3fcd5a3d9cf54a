//! Each call in short form, as one would write it, and what it came to.

use std::fmt::Write;

use storage_core::{
    BatchOptions, Body, Condition, CopyOptions, DeleteOptions, Entry, Error, Filter, GetOptions, Key, ListOptions,
    Metadata, Object, Order, PresignOptions, PutOptions, Query, RenameOptions, StatOptions, VersionId,
};

/// How much of a value or a key is shown.
const SHOWN: usize = 24;
/// How many items of a batch are shown.
const ITEMS: usize = 4;

pub(super) fn get(key: &Key, options: &GetOptions) -> String {
    let mut text = format!("get({}", short(key.as_str()));
    if let Some(range) = options.range {
        add(&mut text, "range", &format!("{range:?}"));
    }
    version(&mut text, &options.version);
    for (name, etag) in [("if_match", &options.if_match), ("if_none_match", &options.if_none_match)] {
        if let Some(etag) = etag {
            add(&mut text, name, &format!("{etag:?}"));
        }
    }
    text + ")"
}

pub(crate) fn put(key: &Key, body: &Body, options: &PutOptions) -> String {
    let mut text = format!("put({}, {}", short(key.as_str()), value(body));
    metadata(&mut text, options.metadata.as_deref());
    condition(&mut text, &options.condition);
    text + ")"
}

pub(super) fn delete(key: &Key, options: &DeleteOptions) -> String {
    let mut text = format!("delete({}", short(key.as_str()));
    version(&mut text, &options.version);
    condition(&mut text, &options.condition);
    text + ")"
}

pub(super) fn stat(key: &Key, options: &StatOptions) -> String {
    let mut text = format!("stat({}", short(key.as_str()));
    version(&mut text, &options.version);
    text + ")"
}

pub(super) fn list(options: &ListOptions) -> String {
    let mut text = format!("list({}", short(&options.prefix));
    if options.delimited {
        text += ", delimited";
    }
    if let Some(start) = &options.start_after {
        add(&mut text, "start_after", &short(start));
    }
    if let Some(limit) = options.limit {
        add(&mut text, "limit", &limit.to_string());
    }
    if options.metadata {
        text += ", metadata";
    }
    if !options.etags {
        text += ", no etags";
    }
    text + ")"
}

pub(super) fn get_batch(items: &[(Key, GetOptions)]) -> String {
    batch("get_batch", items, |(key, options)| get(key, options), false)
}

pub(super) fn put_batch(items: &[(Key, Body, PutOptions)], options: &BatchOptions) -> String {
    batch("put_batch", items, |(key, body, options)| put(key, body, options), options.atomic)
}

pub(super) fn delete_batch(items: &[(Key, DeleteOptions)], options: &BatchOptions) -> String {
    batch("delete_batch", items, |(key, options)| delete(key, options), options.atomic)
}

pub(crate) fn query(query: &Query) -> String {
    let mut parts = Vec::new();
    if !query.prefix.is_empty() {
        parts.push(format!("prefix {}", short(&query.prefix)));
    }
    parts.extend(query.filters.iter().map(|filter| match filter {
        Filter::Field { name, comparison, value } => format!("{name:?} {comparison:?} {value:?}"),
        other => format!("{other:?}"),
    }));
    if query.order != Order::default() {
        parts.push(format!("by {:?}{}", query.order.by, if query.order.descending { " descending" } else { "" }));
    }
    parts.extend(query.limit.map(|limit| format!("limit {limit}")));
    parts.extend(query.continuation.as_ref().map(|after| format!("{after:?}")));
    let text = parts.join(", ");
    if text.len() <= 8 * SHOWN {
        return format!("query({text})");
    }
    format!("query({}…)", text.chars().take(8 * SHOWN).collect::<String>())
}

pub(super) fn clear(prefix: &str) -> String {
    format!("clear({})", short(prefix))
}

pub(super) fn copy(from: &Key, to: &Key, options: &CopyOptions) -> String {
    let mut text = format!("copy({}, {}", short(from.as_str()), short(to.as_str()));
    version(&mut text, &options.version);
    metadata(&mut text, options.metadata.as_deref());
    condition(&mut text, &options.condition);
    text + ")"
}

pub(super) fn rename(from: &Key, to: &Key, options: &RenameOptions) -> String {
    let mut text = format!("rename({}, {}", short(from.as_str()), short(to.as_str()));
    condition(&mut text, &options.condition);
    text + ")"
}

pub(super) fn versions(key: &Key) -> String {
    format!("versions({})", short(key.as_str()))
}

pub(super) fn presign(key: &Key, options: &PresignOptions) -> String {
    let mut text = format!("presign({}, {} for {:?}", short(key.as_str()), options.method, options.expires_in);
    if let Some(content_type) = &options.content_type {
        add(&mut text, "content_type", &format!("{content_type:?}"));
    }
    if let Some(length) = options.content_length {
        add(&mut text, "content_length", &length.to_string());
    }
    text + ")"
}

pub(super) fn begin() -> String {
    "begin()".into()
}

pub(super) fn health() -> String {
    "health()".into()
}

pub(super) fn disconnect() -> String {
    "disconnect()".into()
}

/// What a call came to: its kind of error, and whether it may have happened all the same.
pub(crate) fn failed(error: &Error) -> String {
    let outcome = if error.is_ambiguous() { "outcome unknown" } else { "nothing done" };
    format!("{:?} ({outcome})", error.kind())
}

/// What an entry says.
pub(super) fn entry(entry: &Entry) -> String {
    let mut text = format!("{} bytes", entry.size);
    if let Some(etag) = &entry.etag {
        add(&mut text, "etag", &short(etag.as_str()));
    }
    if let Some(version) = &entry.version {
        add(&mut text, "version", &short(version.as_str()));
    }
    metadata(&mut text, entry.metadata.as_deref());
    text
}

/// What a read gave.
pub(super) fn object(object: Option<&Object>) -> String {
    let Some(object) = object else {
        return "none".into();
    };
    let mut text = value(&object.body);
    if let Some(etag) = &object.entry.etag {
        add(&mut text, "etag", &short(etag.as_str()));
    }
    metadata(&mut text, object.entry.metadata.as_deref());
    text
}

fn value(body: &Body) -> String {
    match (body.buffer(), body.len()) {
        (Some(buffer), _) if buffer.len() <= SHOWN as u64 => {
            let shown: String = buffer.pieces().iter().map(|piece| piece.escape_ascii().to_string()).collect();
            format!("\"{shown}\"")
        }
        (Some(buffer), _) => format!("{} bytes", buffer.len()),
        (None, Some(len)) => format!("a stream of {len} bytes"),
        (None, None) => "a stream".into(),
    }
}

fn metadata(text: &mut String, metadata: Option<&Metadata>) {
    let Some(metadata) = metadata.filter(|metadata| **metadata != Metadata::new()) else {
        return;
    };
    let json = metadata.to_json().to_string();
    let json = if json.len() <= 3 * SHOWN { json } else { format!("{} bytes", json.len()) };
    add(text, "metadata", &json);
}

fn condition(text: &mut String, condition: &Option<Condition>) {
    if let Some(condition) = condition {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {condition:?}");
    }
}

fn version(text: &mut String, version: &Option<VersionId>) {
    if let Some(version) = version {
        add(text, "version", &format!("{version:?}"));
    }
}

fn add(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = write!(text, ", {name} {value}");
}

fn batch<T>(name: &str, items: &[T], call: impl Fn(&T) -> String, atomic: bool) -> String {
    let calls: Vec<String> = items.iter().take(ITEMS).map(call).collect();
    let more = items.len().saturating_sub(ITEMS);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let atomic = if atomic { ", atomic" } else { "" };
    format!("{name}([{}{more}]{atomic})", calls.join(", "))
}

/// A text as a literal, its middle left out when it is long.
fn short(text: &str) -> String {
    if text.len() <= 2 * SHOWN {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head:?}… ({} bytes)", text.len())
}
