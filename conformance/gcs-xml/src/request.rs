//! What a request asks for: its bucket, object, parameters and headers, none of which may be passed over.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, request::Parts};
use percent_encoding::percent_decode_str;

use crate::refusal::{Refusal, Result};

/// Headers that belong to the connection, or to credentials, which nobody looks at here.
const PLAIN: [&str; 9] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "date",
    "host",
    "transfer-encoding",
    "user-agent",
];
/// Begins the names of metadata.
const META: &str = "x-goog-meta-";

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) bucket: String,
    /// Empty for the bucket itself.
    pub(crate) name: String,
    pub(crate) query: BTreeMap<String, String>,
    headers: HeaderMap,
}

/// What is kept with an object.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attributes {
    pub(crate) content_type: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Asked {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let path = parts.uri.path().trim_start_matches('/');
        let (bucket, name) = path.split_once('/').unwrap_or((path, ""));
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let mut query = BTreeMap::new();
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // A plus in a query is a space.
            if query.insert(decode(name)?, decode(&value.replace('+', " "))?).is_some() {
                return Err(Refusal::invalid(format!("the parameter {name} is given twice")));
            }
        }
        Ok(Self { method: parts.method, bucket: decode(bucket)?, name: decode(name)?, query, headers: parts.headers })
    }

    /// The names of the parameters, in order.
    pub(crate) fn parameters(&self) -> Vec<&str> {
        self.query.keys().map(String::as_str).collect()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>> {
        let text = self.headers.get(name).map(|value| value.to_str());
        text.transpose().map_err(|_| Refusal::invalid(format!("the header {name} is not ASCII")))
    }

    /// Refuses headers that mean something, but for these.
    pub(crate) fn only_headers(&self, known: &[&str]) -> Result<()> {
        let unknown =
            self.headers.keys().find(|name| !PLAIN.contains(&name.as_str()) && !known.contains(&name.as_str()));
        unknown.map_or(Ok(()), |name| Err(Refusal::unknown(format_args!("the header {name} here"))))
    }

    /// What is to be kept with an object, of a request that may have these headers, too.
    pub(crate) fn attributes(&self, known: &[&str]) -> Result<Attributes> {
        let mut attributes =
            Attributes { content_type: "application/octet-stream".to_owned(), ..Attributes::default() };
        for name in self.headers.keys().map(http::HeaderName::as_str) {
            let text = || Ok(self.header(name)?.unwrap_or_default().to_owned());
            match name.strip_prefix(META) {
                Some(field) => drop(attributes.metadata.insert(field.to_owned(), text()?)),
                None if name == "content-type" => attributes.content_type = text()?,
                None if PLAIN.contains(&name) || known.contains(&name) => {}
                None => return Err(Refusal::unknown(format_args!("the header {name} here"))),
            }
        }
        Ok(attributes)
    }
}

/// The name of a header that holds metadata.
pub(crate) fn meta(field: &str) -> String {
    format!("{META}{field}")
}

pub(crate) fn decode(text: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Refusal::invalid("the address is not UTF-8"))
}
