//! What somebody may have meant by a name that is not known.

use storage_config::nearest;

/// A question to put behind an error, or nothing. The word itself is not repeated: it may be a secret that was put there by mistake.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}
