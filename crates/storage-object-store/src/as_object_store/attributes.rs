//! Attributes of an object as metadata of a value, and back.

use std::sync::Arc;

use object_store::{Attribute, Attributes, Result as NativeResult, TagSet};
use storage_core::{FieldValue, Metadata};

use super::error::not_supported;

/// How the names of fields begin that hold attributes other than pairs of metadata.
const OWN: &str = "object_store/";
/// Those attributes.
const NAMED: [(Attribute, &str); 5] = [
    (Attribute::CacheControl, "cache-control"),
    (Attribute::ContentDisposition, "content-disposition"),
    (Attribute::ContentEncoding, "content-encoding"),
    (Attribute::ContentLanguage, "content-language"),
    (Attribute::StorageClass, "storage-class"),
];
/// A pair whose own name begins like those lies behind this.
const PAIR: &str = "metadata/";

/// `None` when there is nothing to keep.
pub(super) fn to_metadata(attributes: &Attributes, tags: &TagSet) -> NativeResult<Option<Arc<Metadata>>> {
    let mut metadata = Metadata::new();
    for (attribute, value) in attributes {
        let value = value.as_ref();
        match attribute {
            Attribute::ContentType => metadata.content_type = Some(value.to_owned()),
            Attribute::Metadata(name) => {
                let name = if name.starts_with(OWN) { format!("{OWN}{PAIR}{name}") } else { name.to_string() };
                metadata = metadata.field(name, value);
            }
            other => {
                let named = NAMED.iter().find(|(attribute, _)| attribute == other);
                let (_, name) = named.ok_or_else(|| not_supported(format!("the attribute {other:?} is not known")))?;
                metadata = metadata.field(format!("{OWN}{name}"), value);
            }
        }
    }
    // As they would go into a request: `name=value`, each percent-encoded.
    for tag in tags.encoded().split('&').filter(|tag| !tag.is_empty()) {
        metadata = metadata.tag(tag);
    }
    Ok((metadata != Metadata::new()).then(|| metadata.into()))
}

/// Fields of other types than text, which were written past this trait, are shown as text.
pub(super) fn from_metadata(metadata: &Metadata) -> Attributes {
    let mut attributes = Attributes::new();
    if let Some(media_type) = &metadata.content_type {
        attributes.insert(Attribute::ContentType, media_type.clone().into());
    }
    for (name, value) in &metadata.fields {
        let text = match value {
            FieldValue::String(text) => text.clone(),
            FieldValue::Float(value) => value.to_string(),
            other => other.to_string(),
        };
        attributes.insert(attribute(name), text.into());
    }
    attributes
}

fn attribute(name: &str) -> Attribute {
    let own = name.strip_prefix(OWN).unwrap_or_default();
    match NAMED.iter().find(|(_, known)| *known == own) {
        Some((attribute, _)) => attribute.clone(),
        None => Attribute::Metadata(own.strip_prefix(PAIR).unwrap_or(name).to_owned().into()),
    }
}
