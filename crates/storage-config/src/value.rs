//! One option's value, from a URI (always text) or from a configuration file (typed), as serde sees it.

use serde::{
    Deserialize,
    de::{
        self, IntoDeserializer, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
};

use crate::Secret;

/// The option's name goes with it, so that an error can name it; the value itself is never named.
pub(super) enum Value {
    Text(String, String),
    Json(String, serde_json::Value),
}

type Error = de::value::Error;

/// In place of serde's own message, which repeats the value.
fn mismatch<'de, V: Visitor<'de>>(name: &str, expected: &V) -> Error {
    let expected: &dyn de::Expected = expected;
    de::Error::custom(format!("the option `{name}` must be {expected}"))
}

impl Value {
    /// The secret itself, if it is one by reference.
    fn resolved(self) -> Result<Self, Error> {
        match self {
            Self::Text(name, text) | Self::Json(name, serde_json::Value::String(text)) => {
                match Secret::resolve(&text) {
                    Ok(secret) => Ok(Self::Text(name, secret.expose().to_owned())),
                    Err(e) => Err(de::Error::custom(format!("the option `{name}`: {}", e.message()))),
                }
            }
            other => Ok(other),
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let Value::Text(name, text) = self else {
                return self.deserialize_any(visitor);
            };
            let wrong = mismatch(&name, &visitor);
            let Ok(value) = text.parse::<$type>() else {
                return Err(wrong);
            };
            visitor.$visit(value).map_err(|_: Error| wrong)
        }
    )* };
}

impl<'de> de::Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Text(name, text) => {
                let wrong = mismatch(&name, &visitor);
                visitor.visit_string(text).map_err(|_: Error| wrong)
            }
            Self::Json(name, json) => {
                let wrong = mismatch(&name, &visitor);
                json.deserialize_any(visitor).map_err(|_| wrong)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Json(_, serde_json::Value::Null) => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(if name == Secret::NAME { self.resolved()? } else { self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self::Json(name, serde_json::Value::Array(items)) = self else {
            return self.deserialize_any(visitor);
        };
        let mut items = SeqDeserializer::new(items.into_iter().map(|item| Self::Json(name.clone(), item)));
        let seen = visitor.visit_seq(&mut items)?;
        items.end().map(|()| seen)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self::Json(name, serde_json::Value::Object(map)) = self else {
            return self.deserialize_any(visitor);
        };
        // What stands within is not named: its names are the caller's own, and may be secrets.
        let values = map.into_iter().map(|(key, value)| (key, Self::Json(name.clone(), value)));
        let mut values = MapDeserializer::new(values);
        let seen = visitor.visit_map(&mut values)?;
        values.end().map(|()| seen)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let option = match &self {
            Self::Text(option, _) | Self::Json(option, _) => option.clone(),
        };
        let result = match self {
            Self::Text(_, text) => visitor.visit_enum(text.into_deserializer()),
            Self::Json(_, json) => json.deserialize_enum(name, variants, visitor).map_err(de::Error::custom),
        };
        result.map_err(|_: Error| {
            de::Error::custom(format!("the option `{option}` must be one of `{}`", variants.join("`, `")))
        })
    }

    parsed! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i64 i64;
        deserialize_i16 visit_i64 i64;
        deserialize_i32 visit_i64 i64;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u64 u64;
        deserialize_u16 visit_u64 u64;
        deserialize_u32 visit_u64 u64;
        deserialize_u64 visit_u64 u64;
        deserialize_f32 visit_f64 f64;
        deserialize_f64 visit_f64 f64;
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The names that a struct's derived `Deserialize` asks for; none for any other type.
pub(super) fn names_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It always fails: what it is asked on the way is the answer.
    let _: Result<T, Error> = T::deserialize(Asked(&mut names));
    names
}

struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> de::Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("only the names are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
