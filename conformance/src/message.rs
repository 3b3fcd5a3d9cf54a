//! What a failed check says: the broken promise and its place, the calls, what was expected and seen, how to repeat it.

use std::{env, fs, path::Path};

use crate::{Check, Origin, Selection, Target, calls::Calls};

/// The message of a failed check, all but the line that repeats it.
pub(crate) fn failed(check: &Check, failure: &str, calls: &Calls) -> String {
    let mut text = String::new();
    // A store that could not be opened has not broken what the check is about.
    if calls.count() > 0 {
        for promise in check.promises {
            text += &format!("broken: {promise}\n");
        }
    }
    text += &format!("  check: {}", check.tries);
    text += &calls.lines();
    text += "\n  ";
    text += &parted(failure);
    text
}

/// "what: expected …, saw …" on three lines, where that is what it reads.
fn parted(failure: &str) -> String {
    let Some((what, rest)) =
        failure.split_once("expected ").filter(|(what, _)| what.is_empty() || what.ends_with(": "))
    else {
        return failure.to_owned();
    };
    let Some((expected, saw)) = rest.split_once(", saw ") else {
        return failure.to_owned();
    };
    let what = what.strip_suffix(": ").map(|what| format!("{what}\n  ")).unwrap_or_default();
    format!("{what}expected: {expected}\n  saw: {saw}")
}

/// The line for a shell, in the package or its workspace, that runs this check again.
pub(crate) fn repeat(origin: Origin, target: &Target, selection: &Selection, trial: &str) -> String {
    let mut line = String::from("  repeat: ");
    for name in ["SECONDS", "STREAM_MIB"] {
        let name = format!("STORAGE_CONFORMANCE_{name}");
        if let Some(value) = env::var(&name).ok().filter(|value| !value.is_empty()) {
            line += &format!("{name}={} ", quoted(&value));
        }
    }
    line += &format!("STORAGE_CONFORMANCE_SEED={} cargo test -p {}", selection.seed, origin.package);
    let features = features(Path::new(origin.manifest_dir));
    if !features.is_empty() {
        line += &format!(" --features {}", features.join(","));
    }
    line += &format!(" --test {} -- --exact {}", origin.test, quoted(trial));
    if let Some(variable) = target.variable() {
        line += &format!("\n  with {variable} set to the address of the server");
    }
    line
}

/// The features that the package needs for its targets, as its manifest says for `cargo xtask conformance`.
fn features(dir: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let (_, section) = manifest.split_once("[package.metadata.storage-conformance]").unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    let list = lines.filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == "features");
    let list = list.map(|(_, list)| list.trim().trim_matches(['[', ']'])).unwrap_or_default();
    let names = list.split(',').map(|name| name.trim().trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{parted, quoted};

    #[test]
    fn what_was_expected_and_seen_stand_on_lines_of_their_own() {
        assert_eq!(parted("the size: expected 3, saw 4"), "the size\n  expected: 3\n  saw: 4");
        assert_eq!(parted("expected a, saw b, saw c"), "expected: a\n  saw: b, saw c");
        // Not everything reads so.
        assert_eq!(parted("the check ended early"), "the check ended early");
        assert_eq!(parted("the unexpected happened, saw it"), "the unexpected happened, saw it");
    }

    #[test]
    fn a_shell_takes_a_word_as_it_is() {
        assert_eq!(quoted("memory::a/b"), "'memory::a/b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
