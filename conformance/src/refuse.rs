//! What an undeclared semantic capability means: its operations and options are refused, and nothing is done.
//!
//! The one table of how to provoke each capability.

use std::time::Duration;

use storage_core::{
    BatchOptions, Condition, CopyOptions, DeleteOptions, ErrorKind, Etag, GetOptions, PresignOptions, PutOptions,
    RenameOptions, StatOptions, Storage, VersionId,
};

use crate::{
    Outcome,
    assert::{expect, expect_kind},
    support::expect_value,
};

/// The capabilities with an operation or option that can be refused.
pub(crate) const REFUSABLE: [&str; 6] =
    ["conditional", "conditional_delete", "transactions", "versioning", "presign", "sources"];

/// Proves that what needs the capability is `Unsupported`, and leaves the store as it was.
pub(crate) async fn refused(capability: &str, s: &Storage) -> Outcome {
    s.put("refused", "old").await?;
    match capability {
        "conditional" => conditional(s).await,
        "conditional_delete" => conditional_delete(s).await,
        "transactions" => transactions(s).await,
        "versioning" => versioning(s).await,
        "presign" => presign(s).await,
        "sources" => sources(s).await,
        other => Err(format!("nobody has said how to provoke {other}").into()),
    }?;
    expect_value(s, "refused", Some(b"old")).await?;
    expect_value(s, "refused/new", None).await
}

async fn conditional(s: &Storage) -> Outcome {
    for condition in [Condition::IfAbsent, Condition::IfMatch(Etag::new("etag"))] {
        let (put, copy, rename) = (PutOptions::new(), CopyOptions::new(), RenameOptions::new());
        let put = put.condition(condition.clone());
        for key in ["refused", "refused/new"] {
            let result = s.put_with(key, "new", put.clone()).await;
            unsupported("a put with a condition", result)?;
        }
        let copy = copy.condition(condition.clone());
        let result = s.copy_with("refused", "refused/new", copy).await;
        unsupported("a copy with a condition", result)?;
        let rename = rename.condition(condition);
        let result = s.rename_with("refused", "refused/new", rename).await;
        unsupported("a rename with a condition", result)?;
    }
    Ok(())
}

async fn conditional_delete(s: &Storage) -> Outcome {
    let stale = DeleteOptions::new().condition(Condition::IfMatch(Etag::new("etag")));
    let result = s.delete_with("refused", stale.clone()).await;
    unsupported("a delete with a condition", result)?;
    let batch = s.delete_batch_with([("refused", stale)], BatchOptions::new());
    unsupported("a batch of deletes with a condition", batch.await)
}

async fn transactions(s: &Storage) -> Outcome {
    unsupported("begin", s.begin().await)?;
    let atomic = BatchOptions::new().atomic(true);
    let puts = [("refused/new", "new", PutOptions::new())];
    unsupported("an atomic batch of puts", s.put_batch_with(puts, atomic.clone()).await)?;
    let deletes = [("refused", DeleteOptions::new())];
    unsupported("an atomic batch of deletes", s.delete_batch_with(deletes, atomic).await)
}

async fn versioning(s: &Storage) -> Outcome {
    let version = || VersionId::new("1");
    let listed = s.versions("refused").await.map(|_| "a list of versions");
    unsupported("versions", listed)?;
    let read = s.get_with("refused", GetOptions::new().version(version())).await;
    unsupported("a read of a version", read)?;
    let stat = s.stat_with("refused", StatOptions::new().version(version())).await;
    unsupported("a stat of a version", stat)?;
    let delete = DeleteOptions::new().version(version());
    unsupported("a delete of a version", s.delete_with("refused", delete).await)?;
    let copy = CopyOptions::new().version(version());
    unsupported("a copy of a version", s.copy_with("refused", "refused/new", copy).await)
}

async fn sources(s: &Storage) -> Outcome {
    let source = || PutOptions::new().source("elsewhere");
    unsupported("a put of a source", s.put_with("refused", "", source()).await)?;
    let batch = [("refused", "", source()), ("refused/new", "", source())];
    unsupported("a batch with a source", s.put_batch_with(batch, BatchOptions::new()).await)
}

async fn presign(s: &Storage) -> Outcome {
    let minute = Duration::from_secs(60);
    for options in [PresignOptions::get, PresignOptions::put, PresignOptions::head, PresignOptions::delete] {
        for key in ["refused", "refused/new"] {
            unsupported("presign", s.presign(key, options(minute)).await)?;
        }
    }
    Ok(())
}

fn unsupported<T: std::fmt::Debug>(what: &str, result: storage_core::Result<T>) -> Outcome {
    let error = expect_kind(what, result, ErrorKind::Unsupported)?;
    expect(!error.is_ambiguous(), || format!("{what}: expected a refusal with a definite outcome, saw {error:?}"))
}
