//! Metadata fields as texts, so that the database compares them as the contract does, type by type and byte by byte.
//!
//! A field is `name NUL kind value`. Neither name nor value has a NUL. Kinds are letters in the order in which values of
//! different types sort; numbers are 16 hexadecimal digits that sort as the numbers do. BSON's own numbers would not do: there
//! 1, 1.0 and Decimal 1 are equal.

use storage_core::{Error, FieldValue, Result};

const SIGN: u64 = 1 << 63;

/// What one well-formed field looks like, for the database.
pub(crate) const PATTERN: &str = r"^[^\x00]*\x00(a|b[01]|c[0-9a-f]{16}|d[0-9a-f]{16}|e[^\x00]*)$";

/// Kind and value. Both zeros of a float are one value, as they are equal.
pub(crate) fn value(value: &FieldValue) -> Result<String> {
    Ok(match value {
        FieldValue::Null => "a".into(),
        FieldValue::Bool(value) => format!("b{}", u8::from(*value)),
        FieldValue::Int(value) => format!("c{:016x}", value.cast_unsigned() ^ SIGN),
        FieldValue::Float(value) => {
            let bits = if *value == 0.0 { 0 } else { value.to_bits() };
            format!("d{:016x}", if bits & SIGN == 0 { bits | SIGN } else { !bits })
        }
        FieldValue::String(value) => format!("e{value}"),
        _ => return Err(Error::unsupported("a metadata field of this type")),
    })
}

pub(crate) fn encode(name: &str, field: &FieldValue) -> Result<String> {
    Ok(format!("{name}\0{}", value(field)?))
}

/// `None` for what [`encode`] does not write.
pub(crate) fn decode(text: &str) -> Option<(String, FieldValue)> {
    let (name, value) = text.split_once('\0')?;
    let kind = value.chars().next()?;
    let rest = value.get(1..)?;
    let number = || Some(rest).filter(|rest| rest.len() == 16).and_then(|rest| u64::from_str_radix(rest, 16).ok());
    let value = match (kind, rest) {
        ('a', "") => FieldValue::Null,
        ('b', "0") => FieldValue::Bool(false),
        ('b', "1") => FieldValue::Bool(true),
        ('c', _) => FieldValue::Int((number()? ^ SIGN).cast_signed()),
        ('d', _) => {
            let sortable = number()?;
            let bits = if sortable & SIGN == 0 { !sortable } else { sortable ^ SIGN };
            Some(f64::from_bits(bits)).filter(|float| float.is_finite()).map(FieldValue::Float)?
        }
        ('e', text) if !text.contains('\0') => FieldValue::String(text.to_owned()),
        _ => return None,
    };
    Some((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use storage_core::FieldValue as V;

    use super::{decode, encode, value};

    #[test]
    fn values_sort_as_they_compare_and_come_back() {
        let sorted = [
            V::Null,
            V::Bool(false),
            V::Bool(true),
            V::Int(i64::MIN),
            V::Int(-1),
            V::Int(0),
            V::Int(i64::MAX),
            V::Float(f64::MIN),
            V::Float(-1.5),
            V::Float(-f64::MIN_POSITIVE),
            V::Float(0.0),
            V::Float(1.0),
            V::Float(f64::MAX),
            V::String(String::new()),
            V::String("a".into()),
            V::String("é".into()),
        ];
        let texts: Vec<String> = sorted.iter().map(|v| value(v).unwrap_or_default()).collect();
        assert!(texts.is_sorted_by(|a, b| a < b), "{texts:?}");
        for field in sorted {
            let text = encode("a.$b", &field).unwrap_or_default();
            assert_eq!(decode(&text), Some(("a.$b".to_owned(), field)));
        }
        for wrong in ["", "a", "a\0", "a\0x", "a\0b2", "a\0c1", "a\0dffffffffffffffff", "a\0e\0"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
