//! The connection to the server breaks, or the server has trouble: whichever exchange of an operation it is.

use std::time::Duration;

use futures_util::TryStreamExt;
use storage_core::{Body, Entry, ErrorKind, Storage};

use crate::{
    Context, Failure, Namespace, Outcome,
    assert::{brief, expect, expect_bytes, expect_some},
    proxy::{Fault, Proxy},
    support::{expect_value, noise, pieces},
    writes::{CALLS, each_write_is_honest},
};

/// What the servers that are in trouble ask to wait.
const WAIT: Duration = Duration::from_secs(1);

/// When the connection breaks before the answer of the server or in the middle of it, the write succeeds all the same, or its
/// error can be tried again and is honest: definite only if nothing was done. Whichever exchange with the server it is.
pub async fn lost_answers(c: Context) -> Outcome {
    let (namespace, s) = behind_a_proxy(&c).await?;
    for fault in [Fault::Reset(0), Fault::Reset(3), Fault::Truncate(3)] {
        sweep(&c, &s, namespace.network()?, &fault).await?;
    }
    Ok(())
}

/// When a server says that it has no time, with an error of HTTP that asks to wait, the operation succeeds after that time, or
/// its error has the right kind and says how long to wait. Whichever request it is.
pub async fn busy_server(c: Context) -> Outcome {
    let (namespace, s) = behind_a_proxy(&c).await?;
    if !namespace.speaks_http() {
        return Err(Failure::NotRun("the suite does not know that it speaks HTTP".into()));
    }
    let proxy = namespace.network()?;
    for status in ["429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"] {
        let fault = Fault::answer(status, &format!("retry-after: {}\r\n", WAIT.as_secs()), "");
        sweep(&c, &s, proxy, &fault).await?;
        s.put("key", "v").await?;
        for read in ["get", "stat", "list"] {
            proxy.spoil(0, 1, fault.clone());
            let result = async {
                match read {
                    "get" => s.get("key").await.map(drop),
                    "stat" => s.stat("key").await.map(drop),
                    _ => s.list("").await?.try_collect::<Vec<Entry>>().await.map(drop),
                }
            };
            let result = result.await;
            let struck = proxy.forget();
            let Err(e) = result else { continue };
            let limited = e.kind() == ErrorKind::RateLimited;
            let right = limited || (!status.starts_with("429") && e.kind() == ErrorKind::Unavailable);
            expect(struck && right, || format!("{read} while the server answers {status}: saw {e:?}"))?;
            // No server says so with a 500.
            let said = status.starts_with("500") || e.retry_after() == Some(WAIT);
            expect(said, || {
                format!(
                    "{read} while the server answers {status}: expected it to say how long to wait, saw {:?}",
                    e.retry_after()
                )
            })?;
        }
    }
    Ok(())
}

/// When the connection breaks in the middle of a value, a reader gets an error that can be tried again or the whole value, never
/// a part as if it were the whole. What only comes slowly is read to its end.
pub async fn broken_reads(c: Context) -> Outcome {
    let (namespace, s) = behind_a_proxy(&c).await?;
    let proxy = namespace.network()?;
    let value = noise(c.size(300_000), 1);
    let at = [0, 100, value.len() as u64 / 2];
    for fault in at.into_iter().flat_map(|at| [Fault::Reset(at), Fault::Truncate(at)]) {
        for call in 0..CALLS {
            // Another key each time, which no cache knows.
            let key = format!("{fault:?} {call}").to_lowercase();
            s.put(&key, value.clone()).await?;
            proxy.spoil(call, 1, fault.clone());
            let read = s.get(&key).await;
            let struck = proxy.forget();
            match read {
                Ok(read) => {
                    expect_bytes("a value that arrived without an error", &expect_some("the value", read)?, &value)?
                }
                Err(e) => expect(e.is_retryable(), || {
                    format!("get when exchange {call} ends with {fault:?}: expected an error to retry, saw {e:?}")
                })?,
            }
            expect_value(&s, &key, Some(&value)).await?;
            if !struck {
                break;
            }
            expect(call + 1 < CALLS, || {
                format!("a get takes more than {CALLS} exchanges, and not all of them were tried")
            })?;
        }
    }
    s.put("slow", value.clone()).await?;
    proxy.spoil(0, 1, Fault::Trickle(8192, Duration::from_millis(5)));
    expect_value(&s, "slow", Some(&value)).await
}

/// When the connection breaks while a large value is written, the key has its old value or the new one, whole; the error can be
/// tried again, and is definite only if nothing was done. Whichever exchange with the server it is.
pub async fn broken_uploads(c: Context) -> Outcome {
    const LARGE: usize = 12 << 20;
    let (namespace, s) = behind_a_proxy(&c).await?;
    let proxy = namespace.network()?;
    let size = usize::try_from(s.info().limits.value).map_or(LARGE, |limit| limit.min(LARGE));
    let value = noise(size, 2);
    let upload = || s.put("key", Body::stream(pieces(value.clone(), 1 << 20)));
    let before = proxy.requests();
    upload().await?;
    let calls = usize::try_from(proxy.requests() - before).unwrap_or(usize::MAX);
    expect(calls > 0, || "expected the put to reach the server, saw no exchange".into())?;
    // The first and the last, where there are too many to cut each; one more for what comes by chance, as the look at a
    // connection that has waited.
    let early = calls.saturating_add(1).min(CALLS / 2);
    for call in (0..early).chain(calls.saturating_sub(CALLS / 2).max(early)..=calls) {
        s.put("key", "old").await?;
        proxy.spoil(call, 1, Fault::Reset(0));
        let written = upload().await;
        proxy.forget();
        let stored = expect_some("a value", s.get("key").await?)?;
        let (old, new) = (stored == "old", stored == value);
        let honest = match &written {
            Ok(_) => new,
            Err(e) => e.is_retryable() && (old || (new && e.is_ambiguous())),
        };
        expect(honest, || {
            let length = stored.len();
            format!(
                "a large put when exchange {call} is cut: expected an outcome that fits what is stored, saw {} and {length} bytes",
                brief(&written)
            )
        })?;
    }
    Ok(())
}

/// Every write, with this fault in its first exchange with the server, its second, and so on.
async fn sweep(c: &Context, s: &Storage, proxy: &Proxy, fault: &Fault) -> Outcome {
    each_write_is_honest(
        c,
        s,
        &format!("meeting {fault:?}"),
        |call| proxy.spoil(call, 1, fault.clone()),
        || proxy.forget(),
    )
    .await
}

/// A store that is reached through a proxy.
async fn behind_a_proxy(c: &Context) -> Outcome<(Namespace, Storage)> {
    let namespace = Namespace::proxied();
    let s = c.open_in(&namespace).await?;
    namespace.network()?;
    Ok((namespace, s))
}
