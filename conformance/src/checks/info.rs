//! What a backend says about itself.

use storage_core::{Key, Metadata};

use crate::{
    Context, Failure, Outcome,
    assert::{expect, expect_eq},
};

/// The capabilities that the target pins are declared: taking one back is a failure.
pub async fn required_capabilities(c: Context) -> Outcome {
    let required = c.required();
    if required.iter().all(|(_, required)| !required) {
        return Err(Failure::NotRun("the target pins no capability".into()));
    }
    let declared = c.info().capabilities.iter();
    let missing: Vec<&str> = required
        .iter()
        .zip(declared)
        .filter_map(|((name, required), (_, declared))| (required && !declared).then_some(name))
        .collect();
    expect_eq("the pinned capabilities that are not declared", missing, [""; 0])
}

/// Id, name, description and version are given, and the id is one lowercase word.
pub async fn is_complete(c: Context) -> Outcome {
    let info = c.info();
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    expect(!info.id.is_empty() && info.id.chars().all(word), || {
        format!("expected an id of a to z, 0 to 9, - and _, saw {:?}", info.id)
    })?;
    for (what, text) in [("name", &info.name), ("description", &info.description), ("version", &info.version)] {
        expect(!text.trim().is_empty(), || format!("expected a {what}, saw none"))?;
    }
    Ok(())
}

/// Limits are at least what every backend takes: keys of 512 bytes, metadata of 1,000; in the profile `basic`, metadata of 0 too.
pub async fn limits_are_large_enough(c: Context) -> Outcome {
    let limits = c.info().limits;
    expect((Key::MIN_LIMIT..=Key::MAX_LEN).contains(&limits.key), || {
        format!("expected limits.key from 512 to 1,024, saw {}", limits.key)
    })?;
    let none = limits.metadata == 0 && c.is_basic();
    expect(none || limits.metadata >= Metadata::MIN_LIMIT, || {
        format!("expected limits.metadata of at least 1,000, saw {}", limits.metadata)
    })?;
    expect(limits.value >= 1, || "expected limits.value above 0, saw 0".into())
}

/// Outside of the profile `basic` no shape of keys is refused.
/// Profile: full
pub async fn refuses_no_keys(c: Context) -> Outcome {
    expect_eq("the shapes of keys that are refused", &c.info().refused_keys, &Vec::new())
}

/// What is said does not change while the instance lives, and another instance of the same store says the same.
pub async fn is_stable(c: Context) -> Outcome {
    let before = c.info().clone();
    let s = &c.storage;
    s.put("key", "v").await?;
    s.get("key").await?;
    s.delete("key").await?;
    let other = c.second_handle().await?;
    for (who, info) in [("the same instance", s.info()), ("another instance", other.info())] {
        expect_eq(&format!("the id of {who}"), &info.id, &before.id)?;
        expect_eq(&format!("the capabilities of {who}"), info.capabilities, before.capabilities)?;
        expect_eq(&format!("the limits of {who}"), info.limits, before.limits)?;
        expect_eq(&format!("the consistency of {who}"), info.consistency, before.consistency)?;
    }
    Ok(())
}
