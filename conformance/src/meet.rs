//! Rounds in which clients meet: who calls what, and how the calls are brought together.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{FutureExt, future::BoxFuture};
use storage_core::{ErrorKind, Etag, Isolation, Storage};

use crate::{
    Context, Outcome,
    calls::Calls,
    clients::{Client, If, KEYS, Op, Verb, World},
    history::{Action, Call, Step},
    interleave::{Gate, Pace, breathe, interleaved},
    support::{locked, race},
};

/// Sizes of values, all those of a history the same; the larger ones come now and then.
const SIZES: [usize; 4] = [16, 4096, 70_000, 600_000];

/// A store that answers faster is raced below the log of calls.
const FAST: Duration = Duration::from_millis(1);
/// So many rounds there follow one another at once: threads that have both got a processor meet in all of them.
const TOGETHER: usize = 16;
/// In so many rounds calls must have overlapped. On a machine that has no time they do so rarely, and it takes more rounds.
const ENOUGH: usize = 150;

/// What a client does before others may come in again.
#[derive(Clone)]
pub(crate) enum Turn {
    Call(Op),
    /// These calls in a transaction, which is committed or rolled back.
    Transaction(Vec<Op>, bool),
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(op) => write!(f, "{op:?}"),
            Self::Transaction(ops, true) => write!(f, "transaction of {ops:?}, commit"),
            Self::Transaction(ops, false) => write!(f, "transaction of {ops:?}, roll back"),
        }
    }
}

/// What is there at first, and what each client does.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) seed: u64,
    size: usize,
    there: [bool; KEYS],
    programs: Vec<Vec<Turn>>,
}

impl Round {
    pub(crate) fn new(rng: &mut Rng, there: [bool; KEYS], programs: Vec<Vec<Turn>>) -> Self {
        let size = SIZES[match rng.u8(0..60) {
            0 => 3,
            1..4 => 2,
            4..16 => 1,
            _ => 0,
        }];
        Self { seed: rng.u64(..), size, there, programs }
    }

    fn world(&self, c: &Context, place: &str, n: usize) -> World {
        World::new(&c.storage, format!("{place}/{n:04}/"), self.size, !c.target().is_basic())
    }

    /// Puts what is there at the beginning.
    async fn begin(&self, s: &Storage, world: &World) -> Outcome<[Option<Etag>; KEYS]> {
        let mut client = Client::new(s.clone(), world, 8);
        for key in (0..KEYS).filter(|key| self.there[*key]) {
            client.call(Op { verb: Verb::Put, when: If::Always, key }).await?;
        }
        Ok(client.known().clone())
    }

    /// Looks at what is left, on either handle, and judges.
    async fn end(&self, handles: &[Storage; 2], world: &World) -> Outcome {
        for (i, s) in handles.iter().enumerate() {
            let mut client = Client::new(s.clone(), world, 8 + i);
            for key in 0..KEYS {
                client.call(Op { verb: Verb::Get, when: If::Always, key }).await?;
            }
            client.call(Op { verb: Verb::List, when: If::Always, key: 0 }).await?;
        }
        world.judge()
    }
}

/// A failure of a round shows what its clients did, instead of the check's last calls.
fn told<T>(calls: &Calls, world: &World, outcome: Outcome<T>) -> Outcome<T> {
    outcome.inspect_err(|_| {
        let (title, lines) = world.story();
        calls.show(title, lines);
    })
}

/// Runs the rounds in this task, as many as there is time for, but at least four, below this place.
pub(crate) async fn in_one_task(c: &Context, place: &str, rounds: &[Round], budget_ms: u64) -> Outcome {
    // Every second client has a handle of another instance.
    let handles = [c.storage.clone(), c.second_handle().await?];
    let mut pace = Pace::new(budget_ms, 4, rounds.len());
    for (n, round) in rounds.iter().enumerate() {
        if !pace.goes_on(n) {
            break;
        }
        let world = round.world(c, place, n);
        let known = round.begin(&handles[0], &world).await?;
        let clients: Vec<BoxFuture<'_, Outcome>> = (0..round.programs.len())
            .map(|i| {
                let client = Client::new(handles[i % 2].clone(), &world, i).knowing(&known);
                run(client, &round.programs[i]).boxed()
            })
            .collect();
        let done = interleaved(round.seed, clients).await.into_iter().collect::<Outcome<Vec<()>>>();
        told(c.calls(), &world, done)?;
        told(c.calls(), &world, round.end(&handles, &world).await)?;
    }
    Ok(())
}

/// Runs the first two clients of each round on threads, which begin at the same moment.
pub(crate) async fn on_threads(c: &Context, place: &str, rounds: Vec<Round>, budget_ms: u64) -> Outcome {
    const THREADS: usize = 2;
    let (handles, raw) = c.raw_handles().await?;
    let fast = answers_fast(&raw[1]).await?;
    let (raced, size) = if fast { (raw, TOGETHER) } else { (handles.clone(), 1) };
    let rounds = Arc::new(rounds);
    let worlds: Arc<Vec<World>> =
        Arc::new(rounds.iter().enumerate().map(|(n, round)| round.world(c, place, n)).collect());
    let (gate, known) = (Arc::new(Gate::new(THREADS)), Arc::new(Mutex::new(Vec::new())));
    let shared = (handles.clone(), raced, c.calls().clone(), rounds.clone(), worlds.clone());
    let done = race(THREADS, move |i| {
        let ((handles, raced, calls, rounds, worlds), gate, known) = (shared.clone(), gate.clone(), known.clone());
        async move {
            let mut pace = Pace::new(budget_ms, 4_usize.div_ceil(size), rounds.len().div_ceil(size));
            let (mut met, longest) = (0, Instant::now() + Duration::from_millis(5 * budget_ms));
            let raced = async {
                for (turn, first) in (0..rounds.len()).step_by(size).enumerate() {
                    let these = first..(first + size).min(rounds.len());
                    let goes_on = pace.goes_on(turn) || (met < ENOUGH && Instant::now() < longest);
                    if i == 0 && !goes_on {
                        gate.leave();
                    } else if i == 0 {
                        let mut etags = Vec::new();
                        for n in these.clone() {
                            etags.push(rounds[n].begin(&handles[0], &worlds[n]).await?);
                        }
                        *locked(&known) = etags;
                    }
                    if !gate.wait() {
                        return Ok(first);
                    }
                    let etags = locked(&known).clone();
                    let client = |n: usize| Client::new(raced[i].clone(), &worlds[n], i).knowing(&etags[n - first]);
                    let ready: Vec<_> = these.clone().map(|n| (n, client(n), again(&rounds[n].programs[i]))).collect();
                    for (n, client, program) in ready {
                        // The log has it as one call, for the message of one that hangs.
                        let text = format!("what client {i} does on {:?}: {program:?}", worlds[n].prefix());
                        let noted = calls.begin(i as u64 + 1, text, Vec::new());
                        if !gate.start() {
                            return Ok(n);
                        }
                        // Who comes first by how much decides what is met.
                        for _ in 0..(rounds[n].seed >> (8 * i)) % 128 {
                            std::hint::spin_loop();
                        }
                        told(&calls, &worlds[n], run(client, &program).await)?;
                        noted.end("done".into());
                    }
                    if !gate.wait() {
                        return Ok(first);
                    }
                    met += worlds[these].iter().filter(|world| world.met()).count();
                }
                Ok(rounds.len())
            };
            let raced: Outcome<usize> = raced.await;
            gate.leave();
            raced
        }
    });
    let done = done.await?.into_iter().max().unwrap_or(0);
    for (round, world) in rounds.iter().zip(worlds.iter()).take(done) {
        told(c.calls(), world, round.end(&handles, world).await)?;
    }
    Ok(())
}

async fn answers_fast(s: &Storage) -> Outcome<bool> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        s.stat("absent").await?;
        fastest = fastest.min(begun.elapsed());
    }
    Ok(fastest < FAST)
}

/// The first call twice, because two that begin at the same moment may still miss one another.
fn again(program: &[Turn]) -> Vec<Turn> {
    let first = program.first().filter(|turn| matches!(turn, Turn::Call(_)));
    first.into_iter().chain(program).cloned().collect()
}

async fn run(mut client: Client<'_>, program: &[Turn]) -> Outcome {
    for turn in program {
        breathe().await;
        match turn {
            Turn::Call(op) => client.call(*op).await?,
            Turn::Transaction(ops, commit) => transaction(&mut client, ops, *commit).await?,
        }
    }
    Ok(())
}

/// A transaction, which is one call of the history: what it did is at one moment, or is not.
async fn transaction(client: &mut Client<'_>, ops: &[Op], commit: bool) -> Outcome {
    let world = client.world;
    let started = world.tick();
    let (mut steps, mut conflict) = (Vec::new(), None);
    match client.s.begin().await {
        Err(e) if conflicts(&e) => conflict = Some(e.kind()),
        begun => {
            let tx = begun?;
            let mut within = Client::new(Storage::clone(&tx), world, client.number).knowing(client.known());
            for op in ops {
                breathe().await;
                match within.within(*op).await? {
                    Ok(more) => steps.extend(more),
                    // Whatever the call may have done, the transaction is given up.
                    Err(e) if e.kind() == ErrorKind::Conflict => {
                        conflict = Some(e.kind());
                        break;
                    }
                    Err(e) => return Err(format!("{op:?} in a transaction: expected success, saw {e:?}").into()),
                }
            }
            drop(within);
            breathe().await;
            if conflict.is_some() {
                drop(tx);
            } else if !commit {
                tx.rollback().await?;
            } else {
                match tx.commit().await {
                    Ok(()) => {}
                    Err(e) if conflicts(&e) => conflict = Some(e.kind()),
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
    let ended = world.tick();
    let snapshot = client.s.info().isolation < Isolation::Serializable;
    let steps = match conflict {
        Some(_) => Vec::new(),
        // What it read must hold all the same.
        None if !commit => undone(world, steps),
        None if snapshot => at_two_moments(world, steps),
        None => crate::clients::at_once(steps),
    };
    let what = format!("{:?}", Turn::Transaction(ops.to_vec(), commit));
    world.note([Call { client: client.number, what, error: conflict, started, ended, steps }]);
    Ok(())
}

fn conflicts(e: &storage_core::Error) -> bool {
    e.kind() == ErrorKind::Conflict && !e.is_ambiguous()
}

/// The keys that the steps write.
fn written(steps: &[Step]) -> Vec<usize> {
    let writes = |action: &Action| match action {
        Action::Write(key, _) | Action::Paste(key, ..) => Some(*key),
        _ => None,
    };
    let mut keys: Vec<usize> = steps.iter().flat_map(|step| &step.actions).filter_map(writes).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// All at one moment, and taken back.
fn undone(world: &World, steps: Vec<Step>) -> Vec<Step> {
    let kept: Vec<(usize, usize)> = written(&steps).into_iter().map(|key| (key, world.slot())).collect();
    let keep = kept.iter().map(|(key, slot)| Action::Keep(*slot, *key));
    let back = kept.iter().map(|(key, slot)| Action::Restore(*key, *slot));
    let actions = steps.into_iter().flat_map(|step| step.actions);
    vec![Step::new(keep.chain(actions).chain(back).collect::<Vec<_>>())]
}

/// All reads at one moment, and all writes at a later one, up to which nobody else has changed what is written.
fn at_two_moments(world: &World, steps: Vec<Step>) -> Vec<Step> {
    let kept: Vec<_> = written(&steps).into_iter().map(|key| (key, world.slot(), world.slot())).collect();
    let keep = kept.iter().map(|(key, before, _)| Action::Keep(*before, *key));
    let end = kept.iter().flat_map(|(key, before, after)| [Action::Keep(*after, *key), Action::Restore(*key, *before)]);
    let actions = steps.into_iter().flat_map(|step| step.actions);
    let first = keep.chain(actions).chain(end).collect::<Vec<_>>();
    let still = kept.iter().map(|(key, before, _)| Action::Still(*key, *before));
    let last = still.chain(kept.iter().map(|(key, _, after)| Action::Restore(*key, *after)));
    vec![Step::new(first), Step::then(last.collect::<Vec<_>>())]
}

/// A client's calls, one after the other.
pub(crate) fn calls(ops: impl IntoIterator<Item = Op>) -> Vec<Turn> {
    ops.into_iter().map(Turn::Call).collect()
}

/// What must be there so that none of these calls is refused; a few times it is not.
pub(crate) fn there_for(rng: &mut Rng, ops: &[Op]) -> [bool; KEYS] {
    let mut there = [rng.u8(0..8) > 0, rng.bool()];
    for op in ops {
        if matches!(op.verb, Verb::Copy | Verb::Rename) {
            there[op.other()] = rng.u8(0..8) > 0;
        }
    }
    for op in ops.iter().filter(|op| op.when == If::Absent) {
        there[op.key] = rng.u8(0..8) == 0;
    }
    there
}
