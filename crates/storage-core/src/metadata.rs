//! What can be said about a value beside its bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, ErrorKind, Result};

/// Content type, tags and typed fields. It round-trips exactly, types included; a put replaces it as a whole.
///
/// Its size is that of [`to_json`](Metadata::to_json); every backend takes at least [`Metadata::MIN_LIMIT`] bytes.
///
/// ```
/// use storage_core::Metadata;
/// let metadata = Metadata::new().content_type("text/plain").tag("draft").field("pages", 3);
/// assert_eq!(metadata.to_json(), r#"{"content_type":"text/plain","fields":{"pages":3},"tags":["draft"]}"#);
/// assert_eq!(Metadata::from_json(&metadata.to_json())?, metadata);
/// # Ok::<_, storage_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Metadata {
    /// A media type. Readers who find none assume [`Metadata::DEFAULT_CONTENT_TYPE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Named values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, FieldValue>,
    /// A set of words.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl Metadata {
    /// Every backend takes metadata of at least this many bytes.
    pub const MIN_LIMIT: usize = 1000;
    /// What a value without a content type is taken for.
    pub const DEFAULT_CONTENT_TYPE: &'static str = "application/octet-stream";

    /// Empty metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
        self.content_type = Some(media_type.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// Sets a field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<FieldValue>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The canonical JSON: one object without white space, names in order, empty parts left out. A float always has a
    /// point or an exponent, an integer never.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialising strings, numbers and maps with string keys into memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the canonical form.
    ///
    /// # Errors
    /// `Corrupt` when the text is not what [`to_json`](Metadata::to_json) writes.
    pub fn from_json(json: &str) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "the stored metadata is not readable");
        // Serde would take an array for the struct's fields in order.
        if !json.starts_with('{') {
            return Err(corrupt());
        }
        serde_json::from_str(json).map_err(|e| corrupt().with_source(e))
    }

    /// The number of bytes of the canonical JSON, counted without building it.
    #[must_use]
    pub fn size(&self) -> usize {
        struct Count(usize);
        impl io::Write for Count {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut count = Count(0);
        // Writing to a counter cannot fail.
        let _ = serde_json::to_writer(&mut count, self);
        count.0
    }

    /// Whether any backend could store this.
    ///
    /// # Errors
    /// `InvalidInput` for a float that is not finite or a string with a NUL.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
        let mut texts =
            self.content_type.iter().chain(&self.tags).chain(
                self.fields.iter().flat_map(|(name, value)| [Some(name), value.as_string()].into_iter().flatten()),
            );
        if let Some(text) = texts.find(|text| text.as_bytes().contains(&0)) {
            return wrong(format!("the metadata text {text:?} contains a NUL"));
        }
        for (name, value) in &self.fields {
            if matches!(value, FieldValue::Float(float) if !float.is_finite()) {
                return wrong(format!("the metadata field {name:?} is not a finite number"));
            }
        }
        Ok(())
    }
}

/// The value of a metadata field. Values of different types are never equal: `1`, `1.0`, `"1"` and `true` are four values.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldValue {
    /// Present, without a value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A finite number. NaN and infinities are refused when metadata is stored.
    Float(f64),
    /// A text without NUL.
    String(String),
}

impl FieldValue {
    fn as_string(&self) -> Option<&String> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::String(value) => write!(f, "{value:?}"),
        }
    }
}

macro_rules! into_field_value {
    ($($from:ty => $variant:ident),*) => { $(
        impl From<$from> for FieldValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )* };
}
into_field_value!(bool => Bool, i64 => Int, i32 => Int, u32 => Int, f64 => Float, &str => String, String => String);

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
        }
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = FieldValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("null, a boolean, a 64-bit integer, a finite number or a text")
            }
            fn visit_unit<E: de::Error>(self) -> Result<FieldValue, E> {
                Ok(FieldValue::Null)
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<FieldValue, E> {
                Ok(FieldValue::Bool(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<FieldValue, E> {
                Ok(FieldValue::Int(value))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<FieldValue, E> {
                i64::try_from(value)
                    .map(FieldValue::Int)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<FieldValue, E> {
                Ok(FieldValue::Float(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<FieldValue, E> {
                Ok(FieldValue::String(value.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
