//! From a URI and options to a backend's own configuration.

use std::{collections::BTreeMap, fmt};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{
    Deserialize,
    de::{self, DeserializeOwned, value::MapDeserializer},
};

use storage_core::{Error, ErrorKind, Result};

use crate::{
    Secret, nearest,
    value::{Value, names_of},
};

/// Where a store is and how to use it: `scheme:location?option=value&…`, and further options.
///
/// Location and option values are percent-decoded, so `%3F` stands for a `?` in a path. Any part of it may be a secret, or be
/// taken for another part because a secret was not encoded: so neither `Debug` nor an error repeats any of it, but for names
/// that are known.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionConfig {
    uri: String,
    #[serde(default)]
    options: BTreeMap<String, serde_json::Value>,
    /// The names that `take` has removed, so that an error can list them too.
    #[serde(skip)]
    taken: Vec<&'static str>,
    /// Whether the location has a user or a password, which a backend must not take for a part of a path.
    #[serde(skip)]
    has_credentials: bool,
}

impl ConnectionConfig {
    /// Nothing but a URI.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), ..Self::default() }
    }

    /// Adds an option. The same option in the URI is an error.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.options.insert(name.into(), value.into());
        self
    }

    /// Puts a user and a password into the location, as in `user:password@host`. One of the two may be there already.
    ///
    /// # Errors
    /// `Config` when one of them is given twice, or the URI has no scheme.
    pub fn credentials(mut self, user: Option<&str>, password: Option<&Secret>) -> Result<Self> {
        let (scheme, location) = (self.scheme()?, self.encoded_location());
        let host = location.split('/').next().unwrap_or_default();
        let (there, _) = host.rsplit_once('@').unwrap_or_default();
        let place = location.get(there.len()..).unwrap_or_default().trim_start_matches('@');
        let (user_there, password_there) = there.split_once(':').unwrap_or((there, ""));
        let once = |what: &str, there: &str, given: Option<&str>| match given {
            Some(_) if !there.is_empty() => Err(config_error(format!("the {what} is given twice"))),
            Some(given) => Ok(utf8_percent_encode(given, NON_ALPHANUMERIC).to_string()),
            None => Ok(there.to_owned()),
        };
        let name = once("user", user_there, user)?;
        let word = once("password", password_there, password.map(Secret::expose))?;
        let colon = if word.is_empty() { "" } else { ":" };
        let at = if name.is_empty() && word.is_empty() { "" } else { "@" };
        let options = self.uri.split_once('?').map_or_else(String::new, |(_, options)| format!("?{options}"));
        self.uri = format!("{scheme}://{name}{colon}{word}{at}{place}{options}");
        self.has_credentials |= user.is_some() || password.is_some();
        Ok(self)
    }

    /// What stands before the first `:`; `memory` when the URI is empty.
    ///
    /// # Errors
    /// `Config` when there is something, but no scheme.
    pub fn scheme(&self) -> Result<&str> {
        if self.uri.is_empty() {
            return Ok("memory");
        }
        let scheme = self.uri.split_once(':').map(|(scheme, _)| scheme);
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme
            .filter(|s| s.starts_with(|c: char| c.is_ascii_alphabetic()) && s.chars().all(legal))
            .ok_or_else(|| config_error("a storage URI begins with a scheme and a colon, as in `fs:./storage`"))
    }

    /// What stands between the scheme and the `?`, without leading `//`, decoded.
    ///
    /// # Errors
    /// `Config` when the escapes do not decode to UTF-8, and when [`credentials`](ConnectionConfig::credentials) were given or
    /// stand in the URI, as in `fs://user:password@host`: a location as a whole has no place for them.
    pub fn location(&self) -> Result<String> {
        let encoded = self.encoded_location();
        let location = decode(encoded)?;
        let begins_with_a_host = self.uri.split_once(':').is_some_and(|(_, rest)| rest.starts_with("//"));
        let has_user = |location: &str| {
            let host = location.split('/').next().unwrap_or_default();
            let Some((user, word)) = host.split_once(':') else {
                return begins_with_a_host && host.contains('@');
            };
            let is_drive = user.len() == 1 && word.is_empty();
            // A password may hold a `/`.
            !is_drive && (begins_with_a_host || location.contains('@'))
        };
        if self.has_credentials || has_user(encoded) || has_user(&location) {
            return Err(config_error(
                "this backend takes no user and no password; leave them out of the configuration, and write `./` before a \
                 path with a `:` or `@` in its first part",
            ));
        }
        Ok(location)
    }

    /// The same as it stands in the URI, for a location of several parts that are told apart before they are decoded, as in
    /// `user:password@host`. It may hold a secret.
    #[must_use]
    pub fn encoded_location(&self) -> &str {
        let rest = self.uri.split_once(':').map_or("", |(_, rest)| rest);
        let location = rest.split('?').next().unwrap_or(rest);
        location.strip_prefix("//").unwrap_or(location)
    }

    /// The options of the URI and the others together, as the backend's own type.
    ///
    /// `T` is a struct under `#[serde(deny_unknown_fields, default)]`; do not use `#[serde(flatten)]`, which defeats the check
    /// for unknown names.
    ///
    /// # Errors
    /// `Config` for an unknown option (the message lists the known ones), a value of the wrong type, or an option given twice.
    /// No message repeats a value. A [`Secret`] may be a reference ([`Secret::resolve`]); also for one that leads nowhere.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        self.read(self.all()?)
    }

    /// As [`typed`](ConnectionConfig::typed), but only the options that `T` names, which are removed: for a layer or a base
    /// that shares its options with what lies below.
    ///
    /// # Errors
    /// As `typed`, but what `T` does not know is left where it is.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T> {
        let names = names_of::<T>();
        let mut all = self.all()?;
        all.values.retain(|name, _| names.contains(&name.as_str()));
        let taken = self.read(all)?;
        self.options.retain(|name, _| !names.contains(&name.as_str()));
        if let Some((place, pairs)) = self.uri.split_once('?') {
            let mut kept = Vec::new();
            for pair in pairs.split('&').filter(|pair| !pair.is_empty()) {
                if !names.contains(&decode(pair.split('=').next().unwrap_or(pair))?.as_str()) {
                    kept.push(pair);
                }
            }
            self.uri = if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
        }
        self.taken.extend(names);
        Ok(taken)
    }

    fn all(&self) -> Result<All> {
        let mut all = All::default();
        for (name, value) in &self.options {
            all.values.insert(name.clone(), Value::Json(name.clone(), value.clone()));
        }
        let pairs = self.uri.split_once('?').map_or("", |(_, query)| query);
        for pair in pairs.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (name, value) = (decode(name)?, decode(value)?);
            let value = Value::Text(name.clone(), value);
            if all.values.insert(name.clone(), value).is_some() {
                all.twice = Some(name);
            }
        }
        Ok(all)
    }

    fn read<T: DeserializeOwned>(&self, all: All) -> Result<T> {
        let scheme = self.scheme().unwrap_or_default();
        let about = |message: String| match message.strip_prefix(&format!("{scheme}: ")) {
            Some(_) => config_error(message),
            None => config_error(format!("{scheme}: {message}")),
        };
        let known = names_of::<T>();
        if let Some(name) = all.twice.filter(|name| !self.taken.contains(&name.as_str())) {
            return Err(about(match known.contains(&name.as_str()) {
                true => format!("the option `{name}` is given twice"),
                false => "an option is given twice".to_owned(),
            }));
        }
        if !known.is_empty() && all.values.keys().any(|name| !known.contains(&name.as_str())) {
            return Err(about(self.unknown(known, all.values.keys())));
        }
        T::deserialize(MapDeserializer::<_, de::value::Error>::new(all.values.into_iter()))
            .map_err(|e| about(without_names(&e.to_string())))
    }

    /// That there are options that nobody knows, but not which: what stands there may be a part of a password.
    fn unknown<'a>(&self, known: &[&str], names: impl Iterator<Item = &'a String>) -> String {
        let list = |names: &[&str]| format!("`{}`", names.join("`, `"));
        let mut message = format!("unknown option; known are {}", list(known));
        if !self.taken.is_empty() {
            message += &format!(", and of what wraps it {}", list(&self.taken));
        }
        let all = || known.iter().chain(&self.taken).copied();
        let mut unknown = names.filter(|name| !known.contains(&name.as_str()));
        if let Some(meant) = unknown.find_map(|name| nearest(name, all())) {
            message += &format!(" (did you mean `{meant}`?)");
        }
        if self.uri.contains('@') {
            message +=
                "; in a user or password write `?` as `%3F`, `&` as `%26`, `#` as `%23`, `%` as `%25`, `/` as `%2F`";
        }
        message
    }
}

/// What is given, and the name of an option that is given twice.
#[derive(Default)]
struct All {
    values: BTreeMap<String, Value>,
    twice: Option<String>,
}

/// serde's message about a field or variant that it does not know repeats its name, which may be anything.
fn without_names(message: &str) -> String {
    for what in ["unknown field `", "unknown variant `", "duplicate field `", "invalid value: ", "invalid type: "] {
        let Some((before, rest)) = message.split_once(what) else { continue };
        let what = what.trim_end_matches([' ', '`', ':']);
        // The name itself may hold whatever stands behind it.
        return match rest.rsplit_once(", expected ") {
            Some((_, expected)) => format!("{before}{what}, expected {expected}"),
            None => format!("{before}{what}"),
        };
    }
    message.to_owned()
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionConfig").field("options", &self.options.len()).finish_non_exhaustive()
    }
}

/// What an acknowledged write survives, as backends with a disk of their own offer it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
// Exhaustive, so that a backend has to decide about every level there is.
pub enum Durability {
    /// Power loss: the write is on the disk before it is acknowledged.
    #[default]
    Full,
    /// The end of the process, however sudden, but not power loss: then the last few may be missing, and what else may
    /// happen the backend says.
    Relaxed,
}

fn config_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Into::into)
        .map_err(|_| config_error("the percent-escapes of the storage URI are not UTF-8"))
}
