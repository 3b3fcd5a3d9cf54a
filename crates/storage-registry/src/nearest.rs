//! What somebody may have meant by a name that is not known.

use storage_core::{Error, ErrorKind};

/// The known name that differs least from a word, if it is so near that it may be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).clamp(1, 2);
    let distance = |name| (strsim::damerau_levenshtein(word, name), name);
    let (_, name) = known.into_iter().map(distance).filter(|(distance, _)| *distance <= most).min()?;
    Some(name)
}

/// A question to put behind an error, or nothing.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// Adds the nearest name to an error about an unknown option, whose message lists the known ones between backticks as serde
/// writes it.
pub(crate) fn suggest(error: Error) -> Error {
    let message = error.message();
    let Some((_, names)) = message.split_once("unknown field `") else { return error };
    let mut names = names.split('`').step_by(2);
    let hint = names.next().map_or_else(String::new, |unknown| hint(unknown, names));
    if error.kind() != ErrorKind::Config || hint.is_empty() {
        return error;
    }
    Error::new(ErrorKind::Config, format!("{message}{hint}"))
}
