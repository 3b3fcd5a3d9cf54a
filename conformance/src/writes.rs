//! Every write while something below it fails: what the caller hears must fit what is stored.

use futures_util::{future::BoxFuture, stream};
use storage_core::{Body, Bytes, Result, Storage};

use crate::{
    Outcome,
    assert::{brief, expect},
};

/// Calls below in which one operation can fail, at most.
pub(crate) const CALLS: usize = 64;

type Write = fn(Storage) -> BoxFuture<'static, Result<()>>;

/// Writes, with what `a`, `b` and `new` are afterwards. Before, `a` is `old` and the others are not there.
const WRITES: [(&str, Write, [Option<&str>; 3]); 6] = [
    ("a put", |s| Box::pin(async move { s.put("new", "value").await.map(drop) }), [Some("old"), None, Some("value")]),
    (
        "a put over another",
        |s| Box::pin(async move { s.put("a", "value").await.map(drop) }),
        [Some("value"), None, None],
    ),
    (
        "a put of a stream",
        |s| {
            let pieces = stream::iter(["val", "ue"].map(|piece| Ok(Bytes::from(piece))));
            Box::pin(async move { s.put("a", Body::stream(pieces)).await.map(drop) })
        },
        [Some("value"), None, None],
    ),
    ("a delete", |s| Box::pin(async move { s.delete("a").await }), [None, None, None]),
    ("a copy", |s| Box::pin(async move { s.copy("a", "b").await.map(drop) }), [Some("old"), Some("old"), None]),
    ("a rename", |s| Box::pin(async move { s.rename("a", "b").await.map(drop) }), [None, Some("old"), None]),
];

/// Lets the first call below fail, then the second, and so on, for every write. `plant` does so; `forget` ends it, and says
/// whether anything failed. `how` completes "a put … call 3".
pub(crate) async fn each_write_is_honest(
    s: &Storage,
    how: &str,
    plant: impl Fn(usize),
    forget: impl Fn() -> bool,
) -> Outcome {
    const KEYS: [&str; 3] = ["a", "b", "new"];
    const BEFORE: [Option<&str>; 3] = [Some("old"), None, None];
    /// A rename that is a copy and a delete.
    const BETWEEN: [Option<&str>; 3] = [Some("old"), Some("old"), None];
    for (what, write, after) in WRITES {
        for call in 0..CALLS {
            for key in KEYS {
                s.delete(key).await?;
            }
            s.put("a", "old").await?;
            plant(call);
            let result = write(s.clone()).await;
            let struck = forget();
            let mut seen = Vec::new();
            for key in KEYS {
                seen.push(s.get(key).await?);
            }
            let is = |expected: &[Option<&str>; 3]| {
                seen.iter().zip(expected).all(|(seen, expected)| seen.as_deref() == expected.map(str::as_bytes))
            };
            let honest = match &result {
                Ok(()) => is(&after),
                Err(e) if e.is_ambiguous() => {
                    e.is_retryable() && (is(&BEFORE) || is(&after) || (what == "a rename" && is(&BETWEEN)))
                }
                Err(e) => e.is_retryable() && is(&BEFORE),
            };
            expect(honest, || {
                format!(
                    "{what} {how} call {call}: expected an outcome that fits what is stored, saw {} and {}",
                    brief(&result),
                    brief(&seen)
                )
            })?;
            if !struck {
                expect(call > 0, || format!("expected {what} to reach the store below, saw no call"))?;
                break;
            }
            expect(call + 1 < CALLS, || {
                format!("{what} takes more than {CALLS} calls, and not all of them were tried")
            })?;
        }
    }
    Ok(())
}
