//! What goes wrong below: the store, the disk, the network, the process.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use storage_core::{Body, Bytes, ErrorKind, Metadata};

use crate::{
    Context, Failure, Namespace, Outcome,
    assert::{expect, expect_bytes, expect_eq, expect_some},
    crash,
    faults::Settings,
    process::{Child, say},
    proxy::Mode,
    reads::each_read_is_honest,
    support::{all, expect_value, keeps_metadata, keys, noise, with_on},
    writes::{CALLS, each_other_write_is_honest, each_write_is_honest},
};

/// When a call of the store below fails before it did anything, the operation succeeds all the same, or its error is
/// honest: definite only if nothing was done. Whichever call it is.
pub async fn fail_before(c: Context) -> Outcome {
    sweep(&c, BEFORE, |plan| plan.before = 1.0).await
}

/// When the answer of the store below is lost after it did its work, the operation succeeds all the same, or its error is
/// honest: ambiguous if anything may have been done. Whichever call it is.
pub async fn fail_after(c: Context) -> Outcome {
    sweep(&c, AFTER, |plan| plan.after = 1.0).await
}

/// When the store below delivers less of a value than it has, or breaks off, a reader gets an error or the whole value,
/// never a part as if it were the whole.
pub async fn short_body(c: Context) -> Outcome {
    let plan = c.faults()?;
    let value = noise(c.size(300_000), 1);
    for key in ["short", "broken off"] {
        c.storage.put(key, value.clone()).await?;
        plan.change(|plan| if key == "short" { plan.short_body = 1.0 } else { plan.reset = 1.0 });
        for _ in 0..4 {
            if let Ok(read) = c.storage.get(key).await {
                let read = expect_some("the value", read)?;
                expect_bytes("a value that arrived without an error", &read, &value)?;
            }
            if let Ok(read) = c.storage.get_batch([key]).await {
                let read = expect_some("the value", read.into_values().next())?;
                expect_bytes("a value of a batch that arrived without an error", &read, &value)?;
            }
        }
        plan.change(|plan| (plan.short_body, plan.reset) = (0.0, 0.0));
        expect_value(&c.storage, key, Some(&value)).await?;
    }
    Ok(())
}

const BEFORE: &str = "failing before it does anything";
const AFTER: &str = "failing after it has done its work";

/// Lets the first call below fail, then the second, and so on, for every write.
async fn sweep(c: &Context, how: &str, fault: fn(&mut Settings)) -> Outcome {
    let plan = c.faults()?;
    let plant = |call| {
        plan.change(|plan| {
            fault(plan);
            plan.once_after = Some(call);
        });
    };
    each_write_is_honest(c, &c.storage, how, plant, || plan.forget()).await
}

/// When a read of the store below fails, whichever it is, a reader gets an error to try again or what is there, never less, and
/// never that nothing is there.
pub async fn failed_reads(c: Context) -> Outcome {
    let plan = c.faults()?;
    let plant = |call| {
        plan.change(|plan| (plan.before, plan.once_after) = (1.0, Some(call)));
    };
    each_read_is_honest(&c, BEFORE, plant, || plan.forget()).await
}

/// When a listing, an answer or a body from the store below breaks off in the midst of its stream, or at its very end, what was made of
/// it is an error or whole: a reader gets no part as if it were all, and no write is told as done that is not.
pub async fn broken_streams(c: Context) -> Outcome {
    let plan = c.faults()?;
    for at in [1, 11] {
        let plant = |call| {
            plan.change(|plan| (plan.reset, plan.reset_at, plan.once_after) = (1.0, Some(at), Some(call)));
        };
        // What has no stream is not struck, so the calls that have one are found by trying all.
        each_read_is_honest(&c, &format!("returning a stream that breaks off after {at}"), plant, || {
            let met = plan.met();
            plan.forget();
            met
        })
        .await?;
    }
    for key in ["k/1", "k/2", "k/3"] {
        c.storage.put(key, "value").await?;
    }
    for call in 0..CALLS {
        plan.change(|plan| (plan.reset, plan.reset_at, plan.once_after) = (1.0, Some(1), Some(call)));
        let cleared = c.storage.clear_prefix("k/").await;
        let met = plan.met();
        plan.forget();
        let left = keys(&c.storage, "k/").await?;
        let honest = cleared.as_ref().map_or_else(storage_core::Error::is_retryable, |()| left.is_empty());
        expect(honest, || {
            format!("a clear with a listing broken off: expected an error, or no key, saw {cleared:?} and {left:?}")
        })?;
        if !met {
            break;
        }
        for key in ["k/1", "k/2", "k/3"] {
            c.storage.put(key, "value").await?;
        }
    }
    Ok(())
}

/// When a call below a write under a condition, of several keys or in a transaction fails, before or after it did its work, the error is
/// honest all the same: a creation that may have been done is not denied because it finds itself.
pub async fn failed_conditions_and_batches(c: Context) -> Outcome {
    let plan = c.faults()?;
    for how in [BEFORE, AFTER] {
        let plant = |call| {
            plan.change(|plan| {
                *(if how == BEFORE { &mut plan.before } else { &mut plan.after }) = 1.0;
                plan.once_after = Some(call);
            });
        };
        each_other_write_is_honest(&c, how, plant, || plan.forget()).await?;
    }
    Ok(())
}

/// On a full disk a write fails with an error that can be tried again, what was stored stays whole, and when there is
/// space again writes succeed.
pub async fn disk_full(c: Context) -> Outcome {
    if !c.namespace().uses_dir() {
        return Err(Failure::NotRun("it stores nothing in the directory of the suite".into()));
    }
    let disk = Disk::mount()?;
    // Beside the store, so that space can be made without its help: a delete may need some first. More than the store has,
    // because one with a log may have to write everything once more.
    let (root, ballast) = (disk.0.path().join("root"), disk.0.path().join("ballast"));
    let made = std::fs::create_dir(&root).and_then(|()| std::fs::write(&ballast, vec![1; 8 << 20]));
    made.map_err(|e| format!("the small disk cannot be used: {e}"))?;
    let namespace = Namespace::in_dir(&root);
    let s = c.open_in(&namespace).await?;
    // Nothing in it repeats, so that it fills the disk through a layer that compresses too.
    let mut value = vec![0; 300_000];
    c.rng().fill(&mut value);
    let value = Bytes::from(value);
    s.put("kept", value.clone()).await?;
    if std::fs::read_dir(&root).is_ok_and(|mut names| names.next().is_none()) {
        return Err(Failure::NotRun("it stores nothing in the directory of the suite".into()));
    }
    let (mut stored, mut error) = (Vec::new(), None);
    for i in 0..200 {
        let key = format!("fill/{i}");
        match s.put(&key, value.clone()).await {
            Ok(_) => stored.push(key),
            Err(e) => {
                error = Some(e);
                break;
            }
        }
    }
    let error = expect_some("an error on a full disk", error)?;
    let retryable = error.is_retryable() && error.kind() == ErrorKind::Unavailable;
    expect(retryable, || format!("a put on a full disk: expected the error Unavailable, saw {error:?}"))?;
    expect_value(&s, "kept", Some(&value)).await?;
    for key in &stored {
        expect_value(&s, key, Some(&value)).await?;
    }
    let mut expected = stored.clone();
    expected.push("kept".into());
    expected.sort();
    expect_eq("the keys on a full disk", keys(&s, "").await?, expected)?;
    std::fs::remove_file(&ballast).map_err(|e| format!("no space can be made: {e}"))?;
    s.put("again", value.clone()).await?;
    expect_value(&s, "again", Some(&value)).await?;
    expect_value(&s, "kept", Some(&value)).await
}

/// A small disk, unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Outcome<Self> {
        let place = tempfile::tempdir().map_err(|e| format!("no temporary directory can be made: {e}"))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(place.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self(place)),
            _ => Err(Failure::NotRun("no small disk can be mounted here, which takes Linux and root".into())),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because the store may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// While a server is gone every operation ends with an error that can be tried again, or waits where a layer tries it again;
/// when it is back the same handle goes on, and nothing acknowledged is lost.
pub async fn server_restart(c: Context) -> Outcome {
    /// Acknowledged writes before the server goes.
    const WARM: usize = 20;
    let namespace = Namespace::proxied();
    let s = c.open_in(&namespace).await?;
    let network = namespace.network()?;
    let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers = (0..4).map(|writer| {
        let (s, over, acknowledged) = (s.clone(), over.clone(), acknowledged.clone());
        async move {
            let (mut done, mut failed) = (Vec::new(), 0);
            for n in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let key = format!("{writer}/{n}");
                match s.put(&key, key.clone()).await {
                    Ok(_) => {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                        done.push(key);
                    }
                    Err(e) => {
                        failed += 1;
                        expect(e.is_retryable(), || {
                            format!("a put while the server is gone: expected an error to retry, saw {e:?}")
                        })?;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            Ok((done, failed))
        }
    });
    let writing = tokio::spawn(all(writers.collect::<Vec<_>>()));
    let reached = |more: usize| {
        let (acknowledged, writing) = (acknowledged.clone(), &writing);
        async move {
            let until = Instant::now() + Duration::from_secs(30);
            while acknowledged.load(Ordering::SeqCst) < more {
                expect(Instant::now() < until && !writing.is_finished(), || "expected writes to go on".into())?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Outcome::Ok(())
        }
    };
    let outcome = async {
        reached(WARM).await?;
        network.set(Mode::Cut);
        tokio::time::sleep(Duration::from_millis(150)).await;
        let before = acknowledged.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(150)).await;
        // A stack that tries again makes the writes wait instead of failing them.
        let waited = acknowledged.load(Ordering::SeqCst) == before;
        network.set(Mode::Pass);
        reached(acknowledged.load(Ordering::SeqCst) + WARM).await?;
        Ok(waited)
    };
    let outcome: Outcome<bool> = outcome.await;
    over.store(true, Ordering::SeqCst);
    let written = crate::support::joined(writing).await?;
    let waited = outcome?;
    let failed: usize = written.iter().map(|(_, failed)| failed).sum();
    let noticed = waited || failed > 0;
    expect(noticed, || "expected writes to fail or to wait while the server was gone, saw them go on".into())?;
    for key in written.iter().flat_map(|(done, _)| done) {
        expect_value(&s, key, Some(key.as_bytes())).await?;
    }
    Ok(())
}

/// A process that is killed while it writes loses nothing that was acknowledged: each key has its last acknowledged value,
/// or that of the write in flight, whole and with its metadata.
pub async fn kill_9_keeps_acknowledged(c: Context) -> Outcome {
    const ROUNDS: u64 = 6;
    if c.target().is_one_process() {
        return Err(Failure::NotRun("another process cannot see the store".into()));
    }
    if !keeps_metadata(&c.storage) {
        return Err(Failure::NotRun("it keeps no metadata, by which writes are told apart".into()));
    }
    let seed = c.rng().u64(..u64::from(u32::MAX));
    let killed = crash::rounds(c.target(), c.namespace(), ROUNDS, seed).await?;
    killed.verdict(50).map_err(Failure::Failed)
}

/// What a killed process had staged is gone when the store is opened again; what a living one has staged is not, and becomes
/// its value.
pub async fn stale_staging_swept(c: Context) -> Outcome {
    let value = staged(c.size(STAGED));
    let mut dead = c.process("stage", 1)?;
    let mut living = c.process("stage", 0)?;
    for process in [&mut dead, &mut living] {
        process.expect("staged").await?;
    }
    dead.kill().await?;
    let s = c.open_again().await?;
    expect_eq("the keys while both are staged", keys(&s, "").await?, Vec::<String>::new())?;
    living.say("go on")?;
    living.expect("done").await?;
    drop(living);
    expect_value(&s, "staged 0", Some(&value)).await?;
    drop(s);
    let s = c.open_again().await?;
    expect_eq("what the killed process left", c.target().left(c.namespace()), 0)?;
    expect_eq("the keys", keys(&s, "").await?, ["staged 0"])?;
    expect_value(&s, "staged 0", Some(&value)).await
}

/// Bytes of the value that is staged.
const STAGED: usize = 3_000_000;

fn staged(size: usize) -> Bytes {
    noise(size, 3)
}

/// Stages the first half of a value, and puts the rest when it is told to.
pub(crate) async fn stage(child: Child) -> Outcome {
    let s = child.open().await?;
    let size = usize::try_from(s.info().limits.value).map_or(STAGED, |limit| limit.min(STAGED));
    let mut first = staged(size);
    let second = first.split_off(size / 2);
    let key = format!("staged {}", child.argument);
    let pieces: Vec<Bytes> = first.chunks(1 << 16).map(Bytes::copy_from_slice).collect();
    let rest = async move {
        // By now the first half was taken.
        say("staged");
        child.hear().await;
        Ok(second)
    };
    let pieces = stream::iter(pieces.into_iter().map(Ok)).chain(stream::once(rest));
    s.put_with(&key, Body::stream(pieces), with_on(&s, Metadata::new().tag("staged"))).await?;
    say("done");
    Ok(())
}
