//! Keys that are taken for something else.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt, future::ready};
use storage_core::{
    BackendInfo, Body, DeleteOptions, Entry, Error, ErrorKind, Etag, GetOptions, Key, KeyShape, ListOptions,
    ListStream, Object, PutOptions, Result, StatOptions, async_trait,
};

use super::{
    Saboteur,
    wrap::{Fault, Sides, listed, pause, whole, wrap},
};
use crate::support::locked;

super::table! {
    refuses_more_shapes_than_it_says = RefusesMore => ["info/refuses_no_keys", "keys/random_strings", "keys/refused_shapes", "keys/reserved_names_are_keys", "keys/weird_strings", "list/byte_order", "names/a_key_is_one_key", "names/a_prefix_reaches_to_its_end", "query/injection_is_literal"];
    case_folding = Maps(|key| key.to_lowercase()) => [
        "clear/exactly_the_prefix",
        "keys/case_distinct",
        "keys/nfc_nfd_distinct",
        "keys/percent_literal",
        "keys/random_strings",
        "keys/reserved_names_are_keys",
        "keys/traversal_confined",
        "keys/weird_strings",
        "list/byte_order",
        "list/prefix_is_literal",
        "names/a_prefix_reaches_to_its_end",
        "names/alike_are_distinct_keys",
        "query/content_type",
        "query/prefix",
        "query/tags",
        "versioning/of_one_key_only",
    ];
    decodes_percent = Maps(|key| key.replace("%2F", "/").replace("%20", " ")) => ["keys/percent_literal", "keys/weird_strings"];
    collapses_slashes = Maps(|key| key.replace("//", "/")) => [
        "keys/every_length",
        "keys/slashes_and_dots_are_literal",
        "keys/traversal_confined",
        "list/byte_order",
        "list/one_level_common_prefixes",
        "names/a_key_is_one_key",
        "names/a_prefix_reaches_to_its_end",
    ];
    resolves_dots = Maps(resolve_dots) => ["clear/own_namespace_only", "keys/slashes_and_dots_are_literal", "keys/traversal_confined"];
    composes = Maps(|key| key.replace("e\u{301}", "é")) => [
        "clear/exactly_the_prefix",
        "keys/nfc_nfd_distinct",
        "list/byte_order",
        "list/prefix_is_literal",
        "names/alike_are_distinct_keys",
    ];
    trims = Maps(|key| key.trim_end_matches([' ', '.']).to_owned()) => [
        "keys/every_length",
        "keys/random_strings",
        "keys/slashes_and_dots_are_literal",
        "keys/weird_strings",
        "names/a_key_is_one_key",
        "names/alike_are_distinct_keys",
    ];
    hides_reserved_names = HidesReservedNames => ["keys/reserved_names_are_keys"];
    short_segments = ShortSegments => ["keys/every_length", "keys/every_length_in_queries", "keys/long_segments", "keys/max_len_and_over"];
    short_keys = ShortKeys => ["info/limits_are_large_enough", "keys/max_len_and_over"];
    file_or_directory = FileOrDirectory => [
        "batch/deletes",
        "clear/exactly_the_prefix",
        "clear/own_namespace_only",
        "damaged/can_be_replaced_and_removed",
        "damaged/is_listed_as_such",
        "damaged/no_condition_holds",
        "damaged/queries_find_it_by_no_metadata",
        "damaged/reads_are_corrupt",
        "damaged/values_of_others_are_ordinary",
        "keys/every_length",
        "keys/key_and_key_below_coexist",
        "keys/key_and_key_below_raced",
        "keys/nfc_nfd_distinct",
        "keys/percent_literal",
        "keys/slashes_and_dots_are_literal",
        "list/byte_order",
        "list/one_level_common_prefixes",
        "list/one_level_resumes",
        "list/prefix_is_literal",
        "metadata/listed_only_when_asked",
        "names/a_key_is_one_key",
        "names/a_prefix_reaches_to_its_end",
        "query/injection_is_literal",
        "query/prefix",
        "rename/moves",
        "versioning/of_one_key_only",
    ];
    normalises_hangul = Maps(|key| key.replace("\u{1112}\u{1161}\u{11ab}", "\u{d55c}")) => ["names/alike_are_distinct_keys"];
    normalises_greek = Maps(|key| key.replace('\u{2126}', "\u{3a9}").replace('\u{3c2}', "\u{3c3}")) => ["names/alike_are_distinct_keys"];
    deletes_what_lies_below = DeletesBelow => ["names/a_key_is_one_key"];
    racing_siblings_are_lost = RacingSiblings::default() => ["concurrency/writers_all_land", "keys/key_and_key_below_raced"];
}

/// Finds files beside its root, and behind symbolic links, through keys that look like paths.
pub(super) const FOLLOWS_PATHS: Saboteur = Saboteur {
    group: module_path!(),
    name: "follows_paths",
    catches: &["keys/symlink_confined", "keys/traversal_confined"],
    pins: storage_core::Capabilities::new(),
    base: super::Base::Memory,
    wrap: |inner, namespace| wrap(inner, FollowsPaths { root: namespace.dir().to_owned() }),
};

/// It declares that it refuses a `\\`, and refuses a `~` too.
#[derive(Debug)]
struct RefusesMore;

#[async_trait]
impl Fault for RefusesMore {
    const DERIVED: bool = true;

    fn declare(&self, info: &mut BackendInfo) {
        info.refused_keys = vec![KeyShape::Backslash];
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if key.as_str().contains('~') {
            return Err(Error::new(ErrorKind::InvalidKey, "the key has a `~`"));
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct Maps(fn(&str) -> String);

impl Maps {
    fn key(&self, key: &Key) -> Key {
        Key::parse(&(self.0)(key.as_str())).unwrap_or_else(|_| key.clone())
    }
}

#[async_trait]
impl Fault for Maps {
    const DERIVED: bool = true;

    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        s.inner.get(&self.key(key), options).await
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        s.inner.put(&self.key(key), body, options).await
    }

    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        s.inner.delete(&self.key(key), options).await
    }

    async fn stat(&self, s: Sides<'_>, key: &Key, options: StatOptions) -> Result<Option<Entry>> {
        s.inner.stat(&self.key(key), options).await
    }
}

/// A delete of `a/` is one of everything in there.
#[derive(Debug)]
struct DeletesBelow;

#[async_trait]
impl Fault for DeletesBelow {
    async fn delete(&self, s: Sides<'_>, key: &Key, options: DeleteOptions) -> Result<()> {
        if key.as_str().ends_with('/') && options == DeleteOptions::new() {
            return s.inner.clear(key.as_str()).await;
        }
        s.inner.delete(key, options).await
    }
}

fn resolve_dots(key: &str) -> String {
    let mut segments = Vec::new();
    for segment in key.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.join("/")
}

#[derive(Debug)]
struct HidesReservedNames;

#[async_trait]
impl Fault for HidesReservedNames {
    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let listing = s.inner.list(options).await?;
        let shown = |item: &Result<storage_core::ListItem>| {
            ready(!item.as_ref().is_ok_and(|item| item.position().ends_with(".tmp")))
        };
        Ok(listing.filter(shown).boxed())
    }
}

#[derive(Debug)]
struct ShortSegments;

#[async_trait]
impl Fault for ShortSegments {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if key.as_str().split('/').any(|segment| segment.len() > 255) {
            return Err(Error::new(ErrorKind::Other, "the file name is too long"));
        }
        s.inner.put(key, body, options).await
    }
}

#[derive(Debug)]
struct ShortKeys;

#[async_trait]
impl Fault for ShortKeys {
    fn declare(&self, info: &mut BackendInfo) {
        info.limits.key = 511;
    }
}

#[derive(Debug)]
struct FileOrDirectory;

#[async_trait]
impl Fault for FileOrDirectory {
    const DERIVED: bool = true;

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let below = ListOptions::new().prefix(format!("{key}/")).limit(1);
        let mut clash = !listed(s, below).await?.is_empty();
        for (slash, _) in key.as_str().match_indices('/') {
            if let Ok(parent) = Key::parse(&key.as_str()[..slash]) {
                clash |= s.inner.stat(&parent, StatOptions::new()).await?.is_some();
            }
        }
        if clash {
            return Err(Error::new(ErrorKind::Other, "a file and a directory cannot have the same name"));
        }
        s.inner.put(key, body, options).await
    }
}

/// Of two writers in the same directory at the same time one is lost.
#[derive(Debug, Default)]
struct RacingSiblings {
    busy: Arc<Mutex<HashMap<String, Key>>>,
}

#[async_trait]
impl Fault for RacingSiblings {
    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        let directory = key.as_str().split('/').next().unwrap_or_default().to_owned();
        let lock = || locked(&self.busy);
        let other = lock().insert(directory.clone(), key.clone());
        if other.is_some_and(|other| other != *key) {
            let mut entry = Entry::new(key.clone(), whole(body).await?.len() as u64);
            entry.etag = Some(Etag::new(format!("lost {key}")));
            return Ok(entry);
        }
        pause().await;
        let written = s.inner.put(key, body, options).await;
        lock().remove(&directory);
        written
    }
}

#[derive(Debug)]
struct FollowsPaths {
    root: PathBuf,
}

#[async_trait]
impl Fault for FollowsPaths {
    async fn get(&self, s: Sides<'_>, key: &Key, options: GetOptions) -> Result<Option<Object>> {
        let found = s.inner.get(key, options).await?;
        Ok(found.or_else(|| {
            let bytes = fs::read(self.root.join(key.as_str())).ok()?;
            Some(Object::new(Entry::new(key.clone(), bytes.len() as u64), bytes))
        }))
    }

    async fn put(&self, s: Sides<'_>, key: &Key, body: Body, options: PutOptions) -> Result<Entry> {
        if key.as_str() == "natural" {
            // One value as a file, so that the store looks like one that keeps files.
            let _ = fs::write(self.root.join("natural"), "");
        }
        s.inner.put(key, body, options).await
    }
}
