//! What a failed check says, as a whole: the broken rule and its place, the smallest sequence of calls that shows it, what was expected and
//! seen, and a line that repeats it, which is run.
//!
//! The program is its own subject: asked by `--exact` for a check, it runs that check on one of the broken stores below.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it has seen")]

use std::{
    collections::HashMap,
    env,
    process::{Command, ExitCode},
    sync::{Arc, LazyLock, Mutex, Weak},
};

use libtest_mimic::{Arguments, Trial};
use storage_conformance::{
    Faults, Namespace, Origin, Target, main_with,
    saboteurs::{Saboteur, saboteurs},
};
use storage_memory::Memory;

/// One call or more.
const CALLS: &str = "    …";

/// A store, a check that fails on it, and its message. `…` in a line stands for what may differ.
struct Case {
    name: &'static str,
    target: &'static str,
    check: &'static str,
    /// What only threads do fails by chance, and not always in the same way.
    by_chance: bool,
    lines: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "a_call_that_hangs",
        target: "hangs",
        check: "basic/overwrite",
        by_chance: false,
        lines: &[
            "broken: `put` replaces the value as a whole. (docs/contract.md, Writing)",
            "  check: A put replaces the value as a whole, also a longer one.",
            r#"  calls on "key" (the last 1 of 1 in all):"#,
            r#"    put("key", "a longer value") → no end yet"#,
            r#"  hung in put("key", "a longer value")"#,
            "  expected: its end within 1s",
            "  saw: none for …s",
            "  repeat: STORAGE_CONFORMANCE_SECONDS='1' STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'hangs::basic/overwrite'",
        ],
    },
    Case {
        name: "a_race_that_has_no_order",
        target: "copy_checks_first",
        check: "races/one_creator_wins_whatever_the_way",
        by_chance: false,
        lines: &[
            "broken: Of N racing creators exactly one wins; the others get `AlreadyExists`. (docs/contract.md, Conditional writes)",
            "  check: Of creators that race one wins, whichever way each takes: put, stream, batch, copy or rename.",
            "  calls, the fewest that have no order:",
            "      0..1   client 8: Put b, wrote b = 1 etag 1",
            "      2..7   client 0: Copy b to a if a is absent, saw no a, wrote a etag 3",
            "      5..6   client 1: Copy b to a if a is absent, saw no a, wrote a etag 2",
            "  expected: an order in which each call takes effect between its begin and its end",
            "  saw: none",
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'copy_checks_first::races/one_creator_wins_whatever_the_way'",
        ],
    },
    Case {
        name: "a_torn_read_among_threads",
        target: "torn_between_threads",
        check: "races/every_call_beside_every_other_on_threads",
        by_chance: true,
        lines: &[
            "broken: Every operation on a key takes effect at one moment between its call and its return. (docs/contract.md, Writing)",
            "  check: On threads too, calls of every kind beside calls of every other take effect as a whole, each at one moment.",
            "  calls…:",
            CALLS,
            "  expected: …",
            "  saw: …",
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'torn_between_threads::races/every_call_beside_every_other_on_threads'",
        ],
    },
    Case {
        name: "a_history_that_has_no_order",
        target: "stale_cache",
        check: "concurrency/linearizable_history",
        by_chance: true,
        lines: &[
            "broken: Every operation on a key takes effect at one moment between its call and its return. (docs/contract.md, Writing)",
            "  check: Reads, writes and deletes of one key, seen from outside, have an order in which each takes effect at one moment between its beginning and its end.",
            "  calls on one key, the fewest that have no order:",
            CALLS,
            "  expected: an order in which each call takes effect between its begin and its end",
            "  saw: none",
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'stale_cache::concurrency/linearizable_history'",
        ],
    },
    Case {
        name: "a_failure_below_told_as_definite",
        target: "calls_what_is_ambiguous_definite",
        check: "faults/fail_after",
        by_chance: false,
        lines: &[
            "broken: An error of a middleware is definite only if nothing was done, whichever call below fails. (docs/contract.md, Middleware)",
            "  check: When the answer of the store below is lost after it did its work, the operation succeeds all the same, or its error is honest: ambiguous if anything may have been done. Whichever call it is.",
            "  calls (the last 8 of 8 in all):",
            r#"    delete("a") → done"#,
            r#"    delete("b") → done"#,
            r#"    delete("new") → done"#,
            r#"    put("a", "old") → 3 bytes, etag "…", version "…""#,
            r#"    put("new", "value") → Timeout (nothing done)"#,
            r#"    get("a") → "old", etag "…""#,
            r#"    get("b") → none"#,
            r#"    get("new") → "value", etag "…""#,
            "  a put, call 1 below failing after it has done its work",
            "  expected: an error to try again; its outcome is definite, so that nothing is done",
            r#"  saw: Timeout (nothing done), memory: put "new": no answer; try again (timeout): a planted fault after the call; see whether it was done; "a" = b"old", no "b", "new" = b"value""#,
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'calls_what_is_ambiguous_definite::faults/fail_after'",
        ],
    },
    Case {
        name: "a_failure_below_told_as_success",
        target: "swallows_what_fails_below",
        check: "faults/fail_before",
        by_chance: false,
        lines: &[
            "broken: An error that is not about one entry ends a listing or query. (docs/contract.md, Damaged entries)",
            "broken: An error of a middleware is definite only if nothing was done, whichever call below fails. (docs/contract.md, Middleware)",
            "  check: When a call of the store below fails before it did anything, the operation succeeds all the same, or its error is honest: definite only if nothing was done. Whichever call it is.",
            "  calls (the last 8 of 8 in all):",
            r#"    delete("a") → done"#,
            r#"    delete("b") → done"#,
            r#"    delete("new") → done"#,
            r#"    put("a", "old") → 3 bytes, etag "…", version "…""#,
            r#"    put("new", "value") → 0 bytes"#,
            r#"    get("a") → "old", etag "…""#,
            r#"    get("b") → none"#,
            r#"    get("new") → none"#,
            "  a put, call 1 below failing before it does anything",
            "  expected: all of it done, as it was said to be",
            r#"  saw: success; "a" = b"old", no "b", no "new""#,
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'swallows_what_fails_below::faults/fail_before'",
        ],
    },
    Case {
        name: "a_random_query",
        target: "missing_is_null",
        check: "query/random_vs_oracle",
        by_chance: false,
        lines: &[
            "broken: `query` gives on every backend the answer of a plain model on the same data, as the reference evaluator of `storage-core` does. (docs/contract.md, Query)",
            "  check: The answer to any query over any data is that of the reference evaluator.",
            "  calls, the fewest that were found:",
            r#"    put("c8", 29 bytes)"#,
            r#"    query("missing" NotEqual Float(-0.0))"#,
            r#"  the answer to query("missing" NotEqual Float(-0.0))"#,
            "  expected: []",
            r#"  saw: ["c8"]"#,
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'missing_is_null::query/random_vs_oracle'",
        ],
    },
    Case {
        name: "a_plain_failure",
        target: "deletes_in_vain",
        check: "readonly/writes_are_denied",
        by_chance: false,
        lines: &[
            "broken: A store that may only be read, by an option or for want of rights, answers each write with a definite `PermissionDenied`, and nothing changes; in a batch each item, or the whole call; of a transaction its beginning, the write or the commit. A write that has nothing to change may succeed. (docs/contract.md, Capabilities and limits)",
            "  check: A store that is opened to read only refuses every write with a definite `PermissionDenied`, and nothing has changed.",
            "  calls (the last 1 of 39 in all):",
            r#"    handle 2: delete("a") → done"#,
            "  a delete",
            "  expected: a definite error PermissionDenied",
            "  saw: success",
            "  repeat: STORAGE_CONFORMANCE_SEED=20240229 cargo test -p storage-conformance --test messages -- --exact 'deletes_in_vain::readonly/writes_are_denied'",
        ],
    },
];

fn main() -> ExitCode {
    if env::args().any(|argument| argument == "--exact") || env::var_os("STORAGE_CONFORMANCE_CHILD").is_some() {
        let origin = Origin {
            package: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            test: env!("CARGO_CRATE_NAME"),
        };
        return main_with(origin, CASES.iter().map(target).collect());
    }
    let trials = CASES.iter().map(|case| {
        Trial::test(case.name, move || {
            says_what_it_must(case);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn says_what_it_must(case: &Case) {
    let trial = format!("{}::{}", case.target, case.check);
    let tries = if case.by_chance { 5 } else { 1 };
    let first = (0..tries).find_map(|_| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", &trial]).env("STORAGE_CONFORMANCE_SEED", "20240229");
        if case.target == "hangs" {
            command.env("STORAGE_CONFORMANCE_SECONDS", "1");
        }
        message(command, &trial)
    });
    let first = first.unwrap_or_else(|| panic!("{trial} has not failed"));
    println!("{first}\n");
    fits(&first, case.lines);
    if case.target == "missing_is_null" {
        assert!(first.len() <= 1024, "{} bytes:\n{first}", first.len());
    }

    // The line is run as it is, but for cargo, which has built the program already.
    let line = first.lines().find_map(|line| line.strip_prefix("  repeat: ")).unwrap();
    let cargo = format!("cargo test -p {} --test {} --", env!("CARGO_PKG_NAME"), env!("CARGO_CRATE_NAME"));
    let program = format!("'{}'", env::current_exe().unwrap().display());
    let line = line.replace(&cargo, &program);
    assert!(line.contains(&program) && line.contains("STORAGE_CONFORMANCE_SEED=20240229"), "{line}");
    let again = (0..tries).find_map(|_| {
        // All that counts stands in the line.
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        message(command, &trial)
    });
    let again = again.unwrap_or_else(|| panic!("{trial} has not failed again by\n{line}"));
    fits(&again, case.lines);
    if !case.by_chance && !case.lines.iter().any(|line| line.contains('…')) {
        assert_eq!(again, first);
    }
}

/// What the program says about the trial, if that fails.
fn message(mut command: Command, trial: &str) -> Option<String> {
    command.env_remove("STORAGE_CONFORMANCE_REPORT").env_remove("STORAGE_CONFORMANCE_TARGETS");
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, rest) = text.split_once(&format!("---- {trial} ----\n"))?;
    let (message, _) = rest.split_once("\n\n\nfailures:").or_else(|| rest.split_once("\n\nfailures:")).unwrap();
    Some(message.trim_end().to_owned())
}

fn fits(message: &str, lines: &[&str]) {
    let mut seen = message.lines().peekable();
    let all = lines.iter().all(|pattern| {
        let fits = seen.next().is_some_and(|line| matches(line, pattern));
        while *pattern == CALLS && seen.next_if(|line| matches(line, pattern)).is_some() {}
        fits
    });
    assert!(all && seen.next().is_none(), "expected\n{}\nsaw\n{message}", lines.join("\n"));
}

fn matches(line: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return line == pattern };
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| {
        let at = rest.find(part);
        rest = at.map_or(rest, |at| &rest[at + part.len()..]);
        at.is_some()
    })
}

fn target(case: &Case) -> Target {
    if case.target == "hangs" {
        let open =
            |namespace: Namespace| async move { Ok(Faults::new(memory(&namespace), 0).stall(1.0).only(["put"])) };
        return Target::new("hangs", open);
    }
    let saboteur: Saboteur = saboteurs().into_iter().find(|saboteur| saboteur.name == case.target).unwrap();
    saboteur.target(|namespace| async move { Ok(namespace.below(memory(&namespace))) }).one_process()
}

/// The same store for the same namespace while any instance lives.
fn memory(namespace: &Namespace) -> Arc<Memory> {
    static STORES: LazyLock<Mutex<HashMap<String, Weak<Memory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap();
    let place = stores.entry(namespace.name().to_owned()).or_default();
    place.upgrade().unwrap_or_else(|| {
        let store = Arc::new(Memory::new());
        *place = Arc::downgrade(&store);
        store
    })
}
