//! What a key can be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use storage_core::{ErrorKind, ListOptions, Query, Storage};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq, expect_keys, expect_kind},
    process::{Child, say},
    support::{expect_value, keys, keys_of, positions, put_all, race, sorted, usable},
};

/// Strings that some store or other treats specially.
const WEIRD: [&str; 64] = [
    " ",
    "  ",
    " leading",
    "trailing ",
    "a b",
    "\t",
    "a\tb",
    "\n",
    "a\nb",
    "a\r\nb",
    "'",
    "\"",
    "`",
    "a'b\"c`d",
    "%",
    "%%",
    "%2F",
    "%00",
    "%zz",
    "#",
    "a#b",
    "?",
    "a?b=c&d=e",
    "&",
    "=",
    "+",
    "a+b",
    "\\",
    "a\\b",
    "..\\x",
    "_",
    "a_b",
    "*",
    "a*b",
    "[a]",
    "{a}",
    "$HOME",
    "~",
    "~root",
    "|",
    "<>",
    ":",
    "C:",
    "a:b",
    ";",
    "'; DROP TABLE storage; --",
    ",",
    "!",
    "@",
    "^",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}bom",
    "\u{202e}rtl",
    "é",
    "ß",
    "日本語/テスト",
    "🦀",
    "👩‍👩‍👧/🦀",
    "\u{10ffff}",
    "-",
    "--help",
];

/// Every string is a key and nothing in it is special: spaces, quotes, wildcards, control characters, emoji.
pub async fn weird_strings(c: Context) -> Outcome {
    hold_apart(&c, &WEIRD).await
}

/// `.` and `..` segments, `//`, and leading and trailing `/` are part of the key and mean nothing.
pub async fn slashes_and_dots_are_literal(c: Context) -> Outcome {
    let keys = [
        "/", "//", "///", "/a", "//a", "a/", "a//", "a//b", "a/b", "a", ".", "..", "./", "../", "./a", "a/.", "a/./b",
        "a/..", "a/../b", "b", ".a", "..a", "a.", "a..", "...", "/.", "/..", "a/...", "//../a",
    ];
    hold_apart(&c, &keys).await
}

/// `a` and `A` are two keys.
pub async fn case_distinct(c: Context) -> Outcome {
    hold_apart(&c, &["key", "Key", "KEY", "straße", "STRASSE", "ſ", "s", "ı", "i", "I", "dir/x", "DIR/x"]).await
}

/// Strings that look alike are two keys: nothing is normalised.
pub async fn nfc_nfd_distinct(c: Context) -> Outcome {
    hold_apart(&c, &["é", "e\u{301}", "ﬁ", "fi", "Å", "A\u{30a}", "\u{212b}", "e\u{301}/x", "é/x"]).await
}

/// `%2F` is not `/`: keys are not percent-decoded, nor is `+` a space.
pub async fn percent_literal(c: Context) -> Outcome {
    let keys = ["a/b", "a%2Fb", "a%2fb", "a%252Fb", "a b", "a%20b", "a+b", "%61", "a", "%C3%A9", "é", "%"];
    hold_apart(&c, &keys).await
}

/// Names that a backend might want for itself are keys like others.
pub async fn reserved_names_are_keys(c: Context) -> Outcome {
    let keys = [
        "x",
        "x.tmp",
        "x.part",
        "x.meta",
        "x.json",
        "x.lock",
        "x~",
        "x.1",
        "x#1",
        "x@1",
        ".x",
        ".tmp",
        ".lock",
        ".meta",
        ".storage",
        ".git/config",
        "tmp/x",
        "versions/x",
        "metadata/x",
        "index",
        "con",
        "nul.txt",
        "aux/x",
        "lpt1",
        "id",
        "key",
        "_id",
        "$id",
        "storage",
        "__proto__",
        ".DS_Store",
        "x.upload",
        "staging/x",
        ".staging/x",
    ];
    hold_apart(&c, &keys).await
}

/// A segment between two `/` can be as long as the key.
pub async fn long_segments(c: Context) -> Outcome {
    let long = |n| "s".repeat(n);
    let keys = [
        long(254),
        long(255),
        long(256),
        long(300),
        long(500),
        format!("{}/{}", long(250), long(260)),
        "é".repeat(200),
    ];
    hold_apart(&c, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Keys have 1 to `limits.key` bytes; longer ones are `InvalidKey`, and nothing is stored.
pub async fn max_len_and_over(c: Context) -> Outcome {
    let (s, limit) = (&c.storage, c.info().limits.key);
    expect((512..=1024).contains(&limit), || format!("expected limits.key from 512 to 1,024, saw {limit}"))?;
    let deep = "d/".repeat(limit / 2 - 1);
    let longest = ["k".repeat(limit), format!("{deep}{}", "x".repeat(limit - deep.len())), "é".repeat(limit / 2)];
    hold_apart(&c, &longest.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    for key in ["k".repeat(limit + 1), "é".repeat(limit / 2 + 1), "k".repeat(100_000)] {
        expect_kind("a put under a key that is too long", s.put(&key, "v").await, ErrorKind::InvalidKey)?;
        expect_kind("a get of a key that is too long", s.get(&key).await, ErrorKind::InvalidKey)?;
    }
    expect_eq("the keys", keys(s, "").await?, sorted(usable(s, longest)))
}

/// Keys of every length, in one segment and in many, are listed by a prefix of any length, also by themselves, and cleared.
pub async fn every_length(c: Context) -> Outcome {
    let limit = c.info().limits.key;
    let notable = notable_lengths(limit, &mut c.rng());
    let segments = "in segments of thirty bytes..../".repeat(limit / 31 + 1);
    nested_keys(&c.storage, &segments[..limit], &notable, true).await?;
    let one_segment = "k".repeat(limit);
    if nested_keys(&c.storage, &one_segment, &notable, true).await? < QUICK {
        let others: Vec<usize> = (1..=limit).filter(|len| !notable.contains(len)).collect();
        nested_keys(&c.storage, &one_segment, &others, false).await?;
    }
    Ok(())
}

/// A query for a prefix of any length finds what has that prefix.
///
/// Profile: full
pub async fn every_length_in_queries(c: Context) -> Outcome {
    let limit = c.info().limits.key;
    let text = "k".repeat(limit);
    let notable = notable_lengths(limit, &mut c.rng());
    put_all(&c.storage, notable.iter().map(|len| &text[..*len])).await?;
    for (i, len) in notable.iter().enumerate() {
        let found = c.storage.query(Query::new().prefix(&text[..*len]).limit(2)).await?;
        let seen: Vec<usize> = keys_of(found).await?.iter().map(String::len).collect();
        let expected = &notable[i..notable.len().min(i + 2)];
        expect_eq(&format!("the lengths of the keys found by a prefix of {len} bytes"), seen.as_slice(), expected)?;
    }
    Ok(())
}

/// What three listings and more take at most where all lengths are tried.
const QUICK: Duration = Duration::from_micros(100);

/// Lengths around the powers of two and of ten, the multiples of 64, and some by chance.
fn notable_lengths(limit: usize, rng: &mut fastrand::Rng) -> Vec<usize> {
    let powers = (0..=10).map(|n| 1 << n).chain([10, 100, 1000]);
    let around = powers.chain([limit]).flat_map(|n: usize| [n - 1, n, n + 1]);
    let chance: Vec<usize> = (0..4).map(|_| rng.usize(1..=limit)).collect();
    let all = around.chain((1..=limit / 64).map(|n| n * 64)).chain(chance);
    BTreeSet::from_iter(all.filter(|len| (1..=limit).contains(len))).into_iter().collect()
}

/// Looks at the beginnings of a text as keys, each beside a key below it. Returns what the listings of each take.
async fn nested_keys(s: &Storage, text: &str, lengths: &[usize], thoroughly: bool) -> Outcome<Duration> {
    let taken = |len: &usize| usable(s, [text[..*len].to_owned(), format!("{}/m", &text[..*len])]).len() == 2;
    let lengths = &lengths.iter().copied().filter(taken).collect::<Vec<usize>>()[..];
    // Those below first: where directories are files, they then are in the way.
    let below = lengths.iter().filter(|len| *len + 2 <= text.len()).map(|len| format!("{}/m", &text[..*len]));
    let mut there: BTreeSet<String> = below.collect();
    put_all(s, &there).await?;
    put_all(s, lengths.iter().map(|len| &text[..*len])).await?;
    there.extend(lengths.iter().map(|len| text[..*len].to_owned()));
    let begun = Instant::now();
    for len in lengths {
        first_three(s, &there, &text[..*len], false).await?;
        if thoroughly {
            first_three(s, &there, &text[..*len], true).await?;
            first_three(s, &there, &text[..len - 1], false).await?;
        }
    }
    let each = begun.elapsed() / lengths.len().max(1) as u32;
    for len in lengths.iter().rev().filter(|len| !thoroughly || is_cleared(**len, text.len())) {
        let key = &text[..*len];
        s.clear_prefix(key).await?;
        let cleared: Vec<String> = beginning_with(&there, key).cloned().collect();
        for cleared in cleared {
            there.remove(&cleared);
        }
        expect(s.stat(key).await?.is_none(), || format!("expected no entry of a key of {len} bytes that was cleared"))?;
        if thoroughly {
            first_three(s, &there, &key[..len - 1], false).await?;
        }
    }
    s.clear().await?;
    Ok(each)
}

/// Whether a key of this length is cleared where not all are.
fn is_cleared(len: usize, limit: usize) -> bool {
    len.is_multiple_of(256) || [1, 64, 100, 128, 255, 257, 1000, limit].contains(&len)
}

fn beginning_with<'a>(keys: &'a BTreeSet<String>, prefix: &'a str) -> impl Iterator<Item = &'a String> {
    keys.range(prefix.to_owned()..).take_while(move |key| key.starts_with(prefix))
}

/// A listing that begins as it must.
async fn first_three(s: &Storage, there: &BTreeSet<String>, prefix: &str, delimited: bool) -> Outcome {
    let mut expected: Vec<&str> = Vec::new();
    for key in beginning_with(there, prefix) {
        let slash = key[prefix.len()..].find('/').filter(|_| delimited);
        let position = slash.map_or(key.as_str(), |at| &key[..=prefix.len() + at]);
        if expected.last() != Some(&position) {
            expected.push(position);
        }
        if expected.len() > 3 {
            break;
        }
    }
    expected.truncate(3);
    let seen = positions(s, ListOptions::new().prefix(prefix).delimited(delimited).limit(3)).await?;
    let lengths = |positions: Vec<&str>| positions.iter().map(|position| position.len()).collect::<Vec<_>>();
    expect(seen == expected, || {
        let (expected, seen) = (lengths(expected), lengths(seen.iter().map(String::as_str).collect()));
        format!(
            "expected a listing (one level: {delimited}) of a prefix of {} bytes to begin with keys of {expected:?} bytes, \
             saw {seen:?}",
            prefix.len()
        )
    })
}

/// A string that is empty or contains a NUL is `InvalidKey` before any I/O, in every operation.
pub async fn invalid_rejected(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("good", "v").await?;
    for key in ["", "\0", "a\0b", "a\0"] {
        expect_kind("put", s.put(key, "v").await, ErrorKind::InvalidKey)?;
        expect_kind("get", s.get(key).await, ErrorKind::InvalidKey)?;
        expect_kind("stat", s.stat(key).await, ErrorKind::InvalidKey)?;
        expect_kind("delete", s.delete(key).await, ErrorKind::InvalidKey)?;
        expect_kind("copy from", s.copy(key, "b").await, ErrorKind::InvalidKey)?;
        expect_kind("copy to", s.copy("good", key).await, ErrorKind::InvalidKey)?;
        expect_kind("rename to", s.rename("good", key).await, ErrorKind::InvalidKey)?;
        expect_kind("put_batch", s.put_batch([("b", "v"), (key, "v")]).await, ErrorKind::InvalidKey)?;
    }
    let nul = ListOptions::new().prefix("\0");
    let listed = s.list_with(nul).await.map(|_| "a listing");
    expect_kind("list", listed, ErrorKind::InvalidKey)?;
    expect_eq("the keys", keys(s, "").await?, ["good"])
}

/// In the profile `basic` a store may refuse keys by shapes that it declares: those are `InvalidKey` in every operation, nothing is
/// stored, and keys beside the shape are taken.
pub async fn refused_shapes(c: Context) -> Outcome {
    let s = &c.storage;
    if s.info().refused_keys.is_empty() {
        return Err(Failure::NotRun("it refuses no shape of keys".into()));
    }
    s.put("good", "v").await?;
    let long = "s".repeat(256);
    let tried = [
        ".",
        "..",
        "a/.",
        "../a",
        "a/../b",
        "/",
        "/a",
        "a/",
        "a//b",
        "//",
        "a\\b",
        "%",
        "a%2Fb",
        "a\u{1}b",
        "\n",
        "\u{7f}",
        "é",
        "日本語",
        "🦀",
        &long,
    ];
    let taken = usable(s, tried);
    for shape in &s.info().refused_keys {
        expect(tried.iter().any(|key| shape.matches(key)), || {
            format!("expected a shape that the suite knows, saw {shape:?}")
        })?;
    }
    for key in tried.into_iter().filter(|key| !taken.contains(key)) {
        expect_kind("put", s.put(key, "v").await, ErrorKind::InvalidKey)?;
        expect_kind("get", s.get(key).await, ErrorKind::InvalidKey)?;
        expect_kind("stat", s.stat(key).await, ErrorKind::InvalidKey)?;
        expect_kind("delete", s.delete(key).await, ErrorKind::InvalidKey)?;
        expect_kind("copy from", s.copy(key, "b").await, ErrorKind::InvalidKey)?;
        expect_kind("copy to", s.copy("good", key).await, ErrorKind::InvalidKey)?;
        expect_kind("rename from", s.rename(key, "b").await, ErrorKind::InvalidKey)?;
        expect_kind("rename to", s.rename("good", key).await, ErrorKind::InvalidKey)?;
        expect_kind("put_batch", s.put_batch([("b", "v"), (key, "v")]).await, ErrorKind::InvalidKey)?;
    }
    expect_eq("the keys", keys(s, "").await?, ["good"])?;
    let beside = ["...", "a.b/c..", "a/b", "a b", "+", "x~", &long[1..]];
    hold_apart(&c, &[&beside[..], &taken, &["good"]].concat()).await
}

/// A key never reaches outside the backend's own root, prefix, table or bucket.
pub async fn traversal_confined(c: Context) -> Outcome {
    let (s, neighbour) = (&c.storage, c.other_namespace().await?);
    neighbour.put("secret", "theirs").await?;
    let dir = c.namespace().dir();
    let outer = dir.parent().ok_or("the namespace's directory has a parent")?;
    fs::write(outer.join("secret"), "theirs").map_err(|e| e.to_string())?;
    let own = c.namespace().name();
    let escapes = [
        "../secret".to_owned(),
        "/../secret".to_owned(),
        "a/../../secret".to_owned(),
        "..//secret".to_owned(),
        "./../secret".to_owned(),
        "..\\secret".to_owned(),
        "%2e%2e/secret".to_owned(),
        "..%2fsecret".to_owned(),
        format!("../{own}/secret"),
        format!("{}/secret", outer.display()),
        format!("file://{}/secret", outer.display()),
        "/etc/hostname".to_owned(),
    ];
    let escapes = usable(s, escapes);
    for key in &escapes {
        expect_value(s, key, None).await?;
        s.delete(key).await?;
        s.put(key, "ours").await?;
        expect_value(s, key, Some(b"ours")).await?;
    }
    expect_eq("the keys", keys(s, "").await?, sorted(&escapes))?;
    expect_eq("the neighbour's keys", keys(&neighbour, "").await?, ["secret"])?;
    expect_value(&neighbour, "secret", Some(b"theirs")).await?;
    let seen = fs::read_to_string(outer.join("secret")).map_err(|e| e.to_string())?;
    expect_eq("the file beside the root", seen.as_str(), "theirs")?;
    let beside: Vec<_> = fs::read_dir(outer).map_err(|e| e.to_string())?.filter_map(Result::ok).collect();
    expect_eq("the number of files beside the root", beside.len(), 2)
}

/// Where a store keeps values as files: a symbolic link out of the root is not followed.
pub async fn symlink_confined(c: Context) -> Outcome {
    let s = &c.storage;
    s.put("natural", "v").await?;
    let dir = c.namespace().dir();
    if !dir.join("natural").is_file() {
        return Err(Failure::NotRun("the target does not keep values as files in its directory".into()));
    }
    let outer = dir.parent().ok_or("the namespace's directory has a parent")?;
    let io = |e: std::io::Error| Failure::Failed(e.to_string());
    fs::create_dir(outer.join("private")).map_err(io)?;
    fs::write(outer.join("private/secret"), "theirs").map_err(io)?;
    symlink(&outer.join("private"), &dir.join("link"))?;
    symlink(&outer.join("private/secret"), &dir.join("file"))?;
    for key in ["link/secret", "file"] {
        let seen = s.get(key).await;
        expect(!matches!(seen, Ok(Some(_))), || format!("get {key:?}: expected no value from outside, saw one"))?;
        // Whether it is refused or replaces the link is the backend's choice; what lies outside stays as it is.
        let _ = s.put(key, "ours").await;
        let _ = s.delete(key).await;
    }
    let _ = s.put("link/new", "ours").await;
    let seen = fs::read_to_string(outer.join("private/secret")).map_err(io)?;
    expect_eq("the file outside", seen.as_str(), "theirs")?;
    let outside = fs::read_dir(outer.join("private")).map_err(io)?.count();
    expect_eq("the number of files outside", outside, 1)?;
    expect_value(s, "natural", Some(b"v")).await
}

/// `/` has a meaning only for one-level listing: `a` and `a/b` can both exist, in whichever order they come and go.
pub async fn key_and_key_below_coexist(c: Context) -> Outcome {
    let s = &c.storage;
    let up = ["a", "a/b", "a/b/c", "a/b/c/d"];
    let down = ["z/y/x/w", "z/y/x", "z/y", "z"];
    hold_apart(&c, &[up, down].concat()).await?;
    s.delete("a").await?;
    s.delete("z/y/x").await?;
    expect_eq("the keys", keys(s, "").await?, ["a/b", "a/b/c", "a/b/c/d", "z", "z/y", "z/y/x/w"])?;
    s.delete("a/b/c/d").await?;
    s.delete("a/b").await?;
    s.put("a", "back").await?;
    expect_eq("the keys", keys(s, "").await?, ["a", "a/b/c", "z", "z/y", "z/y/x/w"])?;
    expect_value(s, "a", Some(b"back")).await?;
    expect_value(s, "a/b/c", Some(b"a/b/c")).await
}

/// `a` and `a/b` can be created by two writers at once, and neither is lost.
pub async fn key_and_key_below_raced(c: Context) -> Outcome {
    const ROUNDS: usize = 25;
    let handles = [c.storage.clone(), c.second_handle().await?, c.storage.clone(), c.second_handle().await?];
    race(4, move |i| {
        let s = handles[i].clone();
        async move {
            for round in 0..ROUNDS {
                let key = format!("r{round}{}", ["", "/b", "/b/c", "/d"][i]);
                s.put(&key, key.clone()).await?;
                if round % 5 == 4 {
                    s.delete(&key).await?;
                    s.put(&key, key.clone()).await?;
                }
            }
            Ok(())
        }
    })
    .await?;
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        for tail in ["", "/b", "/b/c", "/d"] {
            let key = format!("r{round}{tail}");
            expect_value(&c.storage, &key, Some(key.as_bytes())).await?;
            expected.push(key);
        }
    }
    expect_keys("the keys", &keys(&c.storage, "").await?, &sorted(expected))
}

/// `a` and `a/b` both exist when two processes create them at the same moment.
pub async fn same_from_two_processes(c: Context) -> Outcome {
    const ROUNDS: usize = 25;
    let mut other = c.process("create", ROUNDS as u64)?;
    for round in 0..ROUNDS {
        other.expect("ready").await?;
        other.say("go")?;
        // Each of the two is the one with the key below in every second round.
        let key = pair(round)[0].clone();
        c.storage.put(&key, key.clone()).await?;
        other.expect("done").await?;
        for key in pair(round) {
            expect_value(&c.storage, &key, Some(key.as_bytes())).await?;
        }
    }
    expect_keys("the keys", &keys(&c.storage, "").await?, &sorted((0..ROUNDS).flat_map(pair)))
}

/// The other process's part.
pub(crate) async fn create(child: Child) -> Outcome {
    let s = child.open().await?;
    for round in 0..child.argument as usize {
        say("ready");
        child.hear().await;
        let key = pair(round)[1].clone();
        s.put(&key, key.clone()).await?;
        say("done");
    }
    Ok(())
}

/// What this process and the other create in a round.
fn pair(round: usize) -> [String; 2] {
    let (key, below) = (format!("{round}"), format!("{round}/below"));
    if round.is_multiple_of(2) { [key, below] } else { [below, key] }
}

/// What others put into the store under names that this backend would not use breaks no listing: it is shown under a key
/// that can be used, or skipped.
pub async fn foreign_names_do_not_break_listing(c: Context) -> Outcome {
    let own = ["a", "dir/b", "z"];
    put_all(&c.storage, own).await?;
    let planted = c.target().plant(c.namespace());
    planted.ok_or_else(|| Failure::NotRun("nobody has said how others put things into this store".into()))?.await?;
    let s = c.second_handle().await?;
    let listed = keys(&s, "").await?;
    expect_eq("the order of the keys", &listed, &sorted(&listed))?;
    for key in own {
        expect(listed.iter().any(|listed| listed == key), || format!("expected {key:?} among {listed:?}"))?;
        expect_value(&s, key, Some(key.as_bytes())).await?;
    }
    for key in &listed {
        match s.stat(key).await {
            // A layer that changes bytes cannot read what is none of its own.
            Err(e) if e.kind() == ErrorKind::Corrupt => {}
            stat => expect(stat?.is_some(), || format!("expected an entry of {key:?}, which is listed, saw none"))?,
        }
    }
    positions(&s, ListOptions::new().delimited(true)).await?;
    positions(&s, ListOptions::new().metadata(true)).await?;
    Ok(())
}

/// Random strings of any characters are keys.
pub async fn random_strings(c: Context) -> Outcome {
    let mut rng = c.rng();
    let mut random = || -> String {
        let len = rng.usize(1..20);
        let mut any = || match rng.u8(0..4) {
            0 => rng.char('\u{1}'..='\u{7f}'),
            1 => rng.alphanumeric(),
            2 => char::from(b"/.%_-~\\ "[rng.usize(0..8)]),
            _ => rng.char('\u{80}'..),
        };
        (0..len).map(|_| any()).collect()
    };
    let strings: BTreeSet<String> = (0..60).map(|_| random()).collect();
    hold_apart(&c, &strings.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// Puts a value of its own under each key, and sees each key and value again, in bytewise order.
async fn hold_apart(c: &Context, all: &[&str]) -> Outcome {
    let s = &c.storage;
    let kept = usable(s, all.iter().copied());
    for key in all.iter().filter(|key| !kept.contains(key)) {
        expect_kind(
            &format!("a put under {key:?}, which has a refused shape"),
            s.put(*key, "v").await,
            ErrorKind::InvalidKey,
        )?;
    }
    let all = &kept[..];
    put_all(s, all).await?;
    for key in all {
        expect_value(s, key, Some(key.as_bytes())).await?;
        let seen = s.stat(*key).await?.map(|entry| entry.key.to_string());
        expect_eq("the key in the entry", seen.as_deref(), Some(*key))?;
    }
    let expected: BTreeMap<&str, ()> = all.iter().map(|key| (*key, ())).collect();
    let expected: Vec<&str> = expected.into_keys().collect();
    expect_eq("the keys", keys(s, "").await?, expected)
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> Outcome {
    std::os::unix::fs::symlink(to, at).map_err(|e| Failure::Failed(e.to_string()))
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> Outcome {
    Err(Failure::NotRun("symbolic links are made on Unix only".into()))
}
