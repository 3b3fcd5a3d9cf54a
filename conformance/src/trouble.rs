//! A server in trouble and a broken network, with and without a layer that tries again: for tests of backends whose server says
//! what is wrong in codes of its own. What every server can do is in the checks `network/…`.

use std::time::Duration;

use futures_util::TryStreamExt;
use storage_core::{Entry, Error, ErrorKind, Storage};
use tokio::time::{sleep, timeout};

use crate::{
    Outcome,
    assert::{expect, expect_eq, expect_kind},
    proxy::{Fault, Proxy},
    support::{expect_value, noise},
    writes::CALLS,
};

/// No operation may take longer, whatever happens.
const PATIENCE: Duration = Duration::from_secs(30);
const VALUE: usize = 200_000;
const LARGE: usize = 12 << 20;

/// A fault, and what a backend makes of it.
#[derive(Clone, Debug)]
pub struct Trouble {
    fault: Fault,
    kind: ErrorKind,
    ambiguous: bool,
}

impl Trouble {
    /// A fault, the kind of error that a read gets, and whether a write must leave open if it has been done.
    #[must_use]
    pub fn new(fault: Fault, kind: ErrorKind, ambiguous: bool) -> Self {
        Self { fault, kind, ambiguous }
    }

    /// What a network does.
    #[must_use]
    pub fn of_networks() -> Vec<Self> {
        let broken = [Fault::Reset(0), Fault::Reset(90), Fault::Truncate(90)];
        let mut all: Vec<_> = broken.map(|fault| Self::new(fault, ErrorKind::Unavailable, true)).into();
        all.push(Self::new(Fault::Silence, ErrorKind::Timeout, true));
        all
    }
}

/// What the caller hears of each trouble, through a store that is reached through the proxy; and that through `retried`, which is
/// the same store below a layer that tries again, what is tried succeeds: a put, a get, a listing.
///
/// # Errors
/// Failed where it is not so.
pub async fn is_told_and_mended(
    proxy: &Proxy,
    storage: &Storage,
    retried: &Storage,
    troubles: impl IntoIterator<Item = Trouble>,
) -> Outcome {
    let (old, new) = (noise(VALUE, 1), noise(VALUE, 2));
    for Trouble { fault, kind, ambiguous } in troubles {
        let spoil = || proxy.spoil(0, 1, fault.clone());
        storage.put("key", old.clone()).await?;
        spoil();
        let error = expect_kind(&format!("get with {fault:?}"), in_time(storage.get("key")).await?, kind)?;
        if let Fault::Answer(answer) = &fault {
            let asked = answer.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
            expect_eq("how long to wait", error.retry_after(), asked.map(Duration::from_secs))?;
        }
        spoil();
        // The answer to a write may have no body that could be missing.
        if let Err(e) = in_time(storage.put("key", new.clone())).await? {
            let honest = e.is_retryable() && e.is_ambiguous() == ambiguous;
            expect(honest, || format!("put with {fault:?}: expected an ambiguous outcome: {ambiguous}, saw {e:?}"))?;
        }
        spoil();
        in_time(retried.put("key", old.clone())).await??;
        expect_value(storage, "key", Some(&old)).await?;
        spoil();
        in_time(expect_value(retried, "key", Some(&old))).await??;
        spoil();
        let listed = async { retried.list("").await?.try_collect::<Vec<Entry>>().await };
        expect_eq("how many keys there are", in_time(listed).await??.len(), 1)?;
    }
    storage.put("key", old.clone()).await?;
    for fault in [Fault::Reset(VALUE as u64 / 2), Fault::Truncate(VALUE as u64 / 2)] {
        proxy.spoil(0, 1, fault);
        in_time(expect_value(retried, "key", Some(&old))).await??;
    }
    Ok(())
}

/// A large value is written through `retried`, a store below a layer that tries again, although one of the requests meets
/// this fault. Whichever it is.
///
/// # Errors
/// Failed where it is not so.
pub async fn is_mended_in_uploads(proxy: &Proxy, retried: &Storage, fault: Fault) -> Outcome {
    let value = noise(LARGE, 3);
    for request in 0..CALLS {
        proxy.spoil(request, 1, fault.clone());
        in_time(retried.put("large", value.clone())).await??;
        let struck = proxy.forget();
        expect_value(retried, "large", Some(&value)).await?;
        if !struck {
            return expect(request > 1, || format!("expected an upload of several requests, saw {request}"));
        }
        retried.delete("large").await?;
    }
    Err(format!("an upload takes more than {CALLS} requests, and not all of them were tried").into())
}

/// A copy through `storage`, whose answer the proxy keeps back, while `other` writes the target by a way of its own: what is told of
/// the copy is never the other's write.
///
/// # Errors
/// Failed where it is not so.
pub async fn is_never_taken_for_a_copy(proxy: &Proxy, storage: &Storage, other: &Storage) -> Outcome {
    let (value, longer) = (noise(1000, 1), noise(2000, 2));
    storage.put("from", value.clone()).await?;
    proxy.hold(0);
    let written = async {
        while other.stat("to").await?.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        let written = other.put("to", longer.clone()).await?;
        proxy.release();
        Ok::<_, Error>(written)
    };
    let (copied, written) = in_time(async { tokio::join!(storage.copy("from", "to"), written) }).await?;
    let written = written?;
    match copied {
        Ok(copied) => {
            expect_eq("the size of the copy", copied.size, value.len() as u64)?;
            expect(copied.etag != written.etag, || {
                format!("expected the copy's own etag, saw that of another write, {copied:?}")
            })?;
        }
        Err(e) => {
            let error = expect_kind("a copy that was replaced", Err::<Entry, _>(e), ErrorKind::Conflict)?;
            expect(error.is_ambiguous(), || format!("expected an ambiguous outcome, saw {error:?}"))?;
        }
    }
    expect_value(other, "to", Some(&longer)).await
}

async fn in_time<T>(operation: impl Future<Output = T>) -> Outcome<T> {
    let ended = timeout(PATIENCE, operation).await;
    Ok(ended.map_err(|_| format!("expected an end within {} seconds, saw none", PATIENCE.as_secs()))?)
}
