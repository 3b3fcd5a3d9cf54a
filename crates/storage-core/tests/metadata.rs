//! Metadata: the canonical JSON, exact round trips, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage_core::{ErrorKind, FieldValue, Metadata};

const SEED: u64 = 0x5eed;

fn bits(value: &FieldValue) -> (FieldValue, Option<u64>) {
    match value {
        // `-0.0 == 0.0`, but they are two values.
        FieldValue::Float(float) => (value.clone(), Some(float.to_bits())),
        other => (other.clone(), None),
    }
}

fn assert_round_trip(metadata: &Metadata) {
    let json = metadata.to_json();
    let back = Metadata::from_json(&json).unwrap();
    assert_eq!(&back, metadata, "{json}");
    for (name, value) in &metadata.fields {
        assert_eq!(bits(&back.fields[name]), bits(value), "{json}");
    }
    assert_eq!(back.to_json(), json);
    assert_eq!(metadata.size(), json.len());
}

#[test]
fn the_canonical_form() {
    assert_eq!(Metadata::new().to_json(), "{}");
    let metadata = Metadata::new()
        .tag("b")
        .tag("a")
        .tag("b")
        .field("z", 1)
        .field("null", FieldValue::Null)
        .field("yes", true)
        .field("float", 1.0)
        .field("", "\"\n\u{1}é🗝")
        .content_type("text/plain");
    assert_eq!(
        metadata.to_json(),
        r#"{"content_type":"text/plain","fields":{"":"\"\n\u0001é🗝","float":1.0,"null":null,"yes":true,"z":1},"tags":["a","b"]}"#
    );
    assert_round_trip(&metadata);
}

#[test]
fn types_and_extremes_round_trip() {
    let values: [FieldValue; 22] = [
        FieldValue::Null,
        true.into(),
        false.into(),
        0.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        u32::MAX.into(),
        0.0.into(),
        (-0.0).into(),
        1.0.into(),
        1e16.into(),
        1e300.into(),
        (-1e300).into(),
        f64::MIN_POSITIVE.into(),
        5e-324.into(),
        f64::MAX.into(),
        0.1.into(),
        9007199254740993.0.into(),
        "".into(),
        "1".into(),
        "null".into(),
        "\u{10ffff}".into(),
    ];
    for value in values {
        assert_round_trip(&Metadata::new().field("f", value));
    }
}

#[test]
fn random_metadata_round_trips() {
    println!("seed {SEED:#x}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let text = |random: &mut fastrand::Rng| -> String {
        let len = random.usize(0..8);
        (0..len).map(|_| random.char('\u{1}'..)).collect()
    };
    for _ in 0..5000 {
        let mut metadata = Metadata::new();
        if random.bool() {
            metadata = metadata.content_type(text(&mut random));
        }
        for _ in 0..random.usize(0..4) {
            metadata = metadata.tag(text(&mut random));
        }
        for _ in 0..random.usize(0..6) {
            let value = match random.u8(0..5) {
                0 => FieldValue::Null,
                1 => random.bool().into(),
                2 => (random.i64(..) >> random.u8(0..64)).into(),
                3 => match f64::from_bits(random.u64(..)) {
                    float if float.is_finite() => float.into(),
                    _ => 0.5.into(),
                },
                _ => text(&mut random).into(),
            };
            metadata = metadata.field(text(&mut random), value);
        }
        metadata.validate().unwrap();
        assert_round_trip(&metadata);
    }
}

#[test]
fn what_no_backend_could_store_is_refused() {
    for wrong in [
        Metadata::new().field("f", f64::NAN),
        Metadata::new().field("f", f64::INFINITY),
        Metadata::new().field("f", f64::NEG_INFINITY),
        Metadata::new().field("f", "a\0b"),
        Metadata::new().field("a\0b", 1),
        Metadata::new().tag("\0"),
        Metadata::new().content_type("text/\0"),
    ] {
        let error = wrong.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong:?}");
    }
}

#[test]
fn what_was_not_written_here_is_corrupt() {
    for wrong in [
        "",
        "{",
        r#"{"unknown":1}"#,
        r#"{"fields":{"f":18446744073709551615}}"#,
        r#"{"fields":{"f":9223372036854775808}}"#,
        r#"{"fields":{"f":1e999}}"#,
        r#"{"fields":{"f":[]}}"#,
        r#"{"fields":{"f":{}}}"#,
        r#"{"tags":[1]}"#,
        "{}{}",
    ] {
        let error = Metadata::from_json(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{wrong}");
    }
}

#[test]
fn an_integer_and_a_float_stay_what_they_are() {
    let read = |json: &str| Metadata::from_json(json).unwrap().fields["f"].clone();
    assert_eq!(read(r#"{"fields":{"f":1}}"#), FieldValue::Int(1));
    assert_eq!(read(r#"{"fields":{"f":1.0}}"#), FieldValue::Float(1.0));
    assert_eq!(read(r#"{"fields":{"f":1e0}}"#), FieldValue::Float(1.0));
    let four: [FieldValue; 4] = [1.into(), 1.0.into(), "1".into(), true.into()];
    for (at, value) in four.iter().enumerate() {
        assert!(four[at + 1..].iter().all(|other| other != value));
    }
}
