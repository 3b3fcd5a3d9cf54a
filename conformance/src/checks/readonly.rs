//! Stores that are opened to read only.

use futures_util::{FutureExt, TryStreamExt, future::BoxFuture};
use storage_core::{
    BatchOptions, Body, DeleteOptions, Entry, ErrorKind, ListItem, ListOptions, Metadata, PutOptions, Query, Result,
    Storage,
};

use crate::{
    Context, Failure, Outcome,
    assert::{expect_eq, expect_some},
    support::{pieces, with_on},
};

/// A store that is opened to read only refuses every write with a definite `PermissionDenied`, and nothing has changed.
pub async fn writes_are_denied(c: Context) -> Outcome {
    let (s, reader) = (&c.storage, opened(&c).await?);
    fill(s).await?;
    let before = picture(s).await?;
    for (what, write) in WRITES {
        c.calls().case();
        let saw = match write(reader.clone()).await {
            Err(e) if e.kind() == ErrorKind::PermissionDenied && !e.is_ambiguous() => None,
            Err(e) => Some(format!("{e:?}")),
            Ok(()) => Some("success".into()),
        };
        if let Some(saw) = saw {
            return Err(format!("{what}: expected a definite error PermissionDenied, saw {saw}").into());
        }
        expect_eq(&format!("what is stored after {what} that was refused"), picture(s).await?, &before[..])?;
    }
    Ok(())
}

/// A store that is opened to read only is read like any other, shows what others write, and has the same capabilities.
pub async fn reads_are_as_ever(c: Context) -> Outcome {
    let (s, reader) = (&c.storage, opened(&c).await?);
    fill(s).await?;
    expect_eq("what is read", picture(&reader).await?, picture(s).await?)?;
    expect_eq("the capabilities", reader.info().capabilities, s.info().capabilities)?;
    expect_eq("an absent key", reader.stat("absent").await?, None)?;
    s.put("a", "newer").await?;
    s.delete("dir/b").await?;
    expect_eq("what is read when others have written", picture(&reader).await?, picture(s).await?)
}

/// The check's own store, opened to read only.
async fn opened(c: &Context) -> Outcome<Storage> {
    // It may have to be there before.
    c.storage.put("first", "value").await?;
    let reader = c.open_to_read().await?;
    reader.ok_or_else(|| Failure::NotRun("the target does not say how it is opened to read only".into()))
}

async fn fill(s: &Storage) -> Outcome {
    s.put_with("a", "value", with_on(s, Metadata::new().tag("t").field("n", 1))).await?;
    s.put("dir/b", "").await?;
    Ok(())
}

/// Keys, entries and values.
async fn picture(s: &Storage) -> Outcome<Vec<String>> {
    let items: Vec<ListItem> = s.list_with(ListOptions::new().metadata(true)).await?.try_collect().await?;
    let mut seen = Vec::new();
    for entry in items.into_iter().filter_map(ListItem::into_entry) {
        let stat = expect_some("the entry of a listed key", s.stat(&entry.key).await?)?;
        let value = s.get(&entry.key).await?;
        seen.push(format!("{:?} = {value:?}, {:?}, {:?}", entry.key, stat.etag, entry.metadata));
    }
    let answer: Vec<Entry> = s.query(Query::new()).await?.try_collect().await?;
    seen.extend(answer.iter().map(|entry| format!("found {:?}", entry.key)));
    Ok(seen)
}

type Write = fn(Storage) -> BoxFuture<'static, Result<()>>;

/// Writes, each of which would change something.
const WRITES: [(&str, Write); 12] = [
    ("a put", |s| async move { s.put("new", "value").await.map(drop) }.boxed()),
    ("a put over another", |s| async move { s.put("a", "other").await.map(drop) }.boxed()),
    ("a put of a stream", |s| {
        async move { s.put("new", Body::stream(pieces("value".into(), 2))).await.map(drop) }.boxed()
    }),
    ("a delete", |s| async move { s.delete("a").await }.boxed()),
    ("a batch of puts", |s| {
        let items = ["a", "new"].map(|key| (key, "other", PutOptions::new()));
        async move { each(s.put_batch_with(items, BatchOptions::new()).await) }.boxed()
    }),
    ("a batch of deletes", |s| {
        let items = ["a", "dir/b"].map(|key| (key, DeleteOptions::new()));
        async move { each(s.delete_batch_with(items, BatchOptions::new()).await) }.boxed()
    }),
    ("a copy", |s| async move { s.copy("a", "new").await.map(drop) }.boxed()),
    ("a copy over another", |s| async move { s.copy("a", "dir/b").await.map(drop) }.boxed()),
    ("a rename", |s| async move { s.rename("a", "new").await.map(drop) }.boxed()),
    ("a clear", |s| async move { s.clear().await }.boxed()),
    ("a clear of a prefix", |s| async move { s.clear_prefix("dir/").await }.boxed()),
    ("a transaction", |s| {
        async move {
            if !s.info().capabilities.transactions {
                return s.put("new", "value").await.map(drop);
            }
            let tx = s.begin().await?;
            tx.put("new", "value").await?;
            tx.commit().await
        }
        .boxed()
    }),
];

/// The error of a batch, which all its items must have.
fn each<T>(results: Result<Vec<Result<T>>>) -> Result<()> {
    let mut error = None;
    for result in results? {
        match result {
            Ok(_) => return Ok(()),
            Err(e) => error = Some(e),
        }
    }
    error.map_or(Ok(()), Err)
}
