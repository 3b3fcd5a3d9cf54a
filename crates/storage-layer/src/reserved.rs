//! A place of one's own in a store that others write to: keys below a prefix, and a metadata field.

use std::{borrow::Cow, collections::BTreeMap};

use storage_core::{FieldValue, Key, Metadata, Result};

/// Keys below a prefix, and one metadata field, that are not the user's. A user's key that begins so is stored below `escaped`, a user's field of this
/// name gets an apostrophe more, and so on: each has one name in the store, and keys keep their order.
///
/// ```
/// use storage_layer::Reserved;
///
/// const OWN: Reserved = Reserved::new(".mine/", ".mine/u/", "mine");
/// assert_eq!(OWN.below(".mine/x"), ".mine/u/x");
/// assert_eq!(OWN.above(".mine/u/x"), ".mine/x");
/// assert!(OWN.is_own(".mine/marker") && !OWN.is_own(".mine/u/x") && OWN.below("other") == "other");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    prefix: &'static str,
    escaped: &'static str,
    field: &'static str,
}

impl Reserved {
    /// A prefix, a longer one behind everything of one's own, below which the user's keys lie that begin with the first, and the name of a field.
    #[must_use]
    pub const fn new(prefix: &'static str, escaped: &'static str, field: &'static str) -> Self {
        Self { prefix, escaped, field }
    }

    /// The store's text for the user's: a key, a prefix, a start.
    #[must_use]
    pub fn below<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match text.strip_prefix(self.prefix) {
            Some(rest) => Cow::Owned(format!("{}{rest}", self.escaped)),
            None => Cow::Borrowed(text),
        }
    }

    /// The user's text for the store's: a key, a common prefix.
    #[must_use]
    pub fn above<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match text.strip_prefix(self.escaped) {
            Some(rest) => Cow::Owned(format!("{}{rest}", self.prefix)),
            None => Cow::Borrowed(text),
        }
    }

    /// The store's key for the user's.
    ///
    /// # Errors
    /// `InvalidKey` when it is too long.
    pub fn key_below(&self, key: &Key) -> Result<Key> {
        match self.below(key.as_str()) {
            Cow::Borrowed(_) => Ok(key.clone()),
            Cow::Owned(escaped) => Key::parse(&escaped),
        }
    }

    /// The user's key for the store's.
    ///
    /// # Errors
    /// `InvalidKey` for one that no user's key has.
    pub fn key_above(&self, key: Key) -> Result<Key> {
        match self.above(key.as_str()) {
            Cow::Borrowed(_) => Ok(key),
            Cow::Owned(plain) => Key::parse(&plain),
        }
    }

    /// Whether a key of the store, or a common prefix, is none of the user's.
    #[must_use]
    pub fn is_own(&self, text: &str) -> bool {
        text.starts_with(self.prefix) && !text.starts_with(self.escaped)
    }

    /// The user's metadata with the field.
    #[must_use]
    pub fn attach(&self, mut metadata: Metadata, value: impl Into<FieldValue>) -> Metadata {
        metadata.fields = self.renamed(metadata.fields, |name| name.push('\''));
        metadata.field(self.field, value)
    }

    /// What the field holds, if it is there.
    #[must_use]
    pub fn field<'m>(&self, metadata: &'m Metadata) -> Option<&'m FieldValue> {
        metadata.fields.get(self.field)
    }

    /// The user's metadata, of metadata in which the field is.
    #[must_use]
    pub fn detach(&self, mut metadata: Metadata) -> Metadata {
        metadata.fields.remove(self.field);
        metadata.fields = self.renamed(metadata.fields, |name| name.truncate(name.len() - 1));
        metadata
    }

    /// Moves the fields whose names are this one but for apostrophes.
    fn renamed(
        &self,
        fields: BTreeMap<String, FieldValue>,
        rename: impl Fn(&mut String),
    ) -> BTreeMap<String, FieldValue> {
        let moved = fields.into_iter().map(|(mut name, value)| {
            if name.trim_end_matches('\'') == self.field {
                rename(&mut name);
            }
            (name, value)
        });
        moved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Reserved = Reserved::new(".own/", ".own/u/", "own");

    #[test]
    fn every_key_has_one_name_below_and_the_order_stays() {
        let keys = ["!", ".own", ".own/", ".own/a", ".own/u/", ".own/u/u/x", ".own0", "a"];
        let names: Vec<_> = keys.iter().map(|key| OWN.below(key).into_owned()).collect();
        assert!(names.is_sorted() && names.iter().all(|name| !OWN.is_own(name)), "{names:?}");
        assert!(keys.iter().zip(&names).all(|(key, name)| OWN.above(name) == *key));
    }

    #[test]
    fn the_users_fields_of_the_name_come_back_as_they_were() {
        let users = Metadata::new().field("own", 1).field("own'", true).field("own''x", "y").field("other", "z");
        let stored = OWN.attach(users.clone(), "note");
        assert_eq!(OWN.field(&stored), Some(&FieldValue::String("note".into())));
        assert_eq!((stored.fields.len(), OWN.detach(stored)), (5, users));
    }
}
