//! How checks let calls meet: many futures in one task, or threads that start at the same moment.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::{future::BoxFuture, task::AtomicWaker};

/// Runs the futures in this one task, polled in an order that the seed decides, so that every await of a store is a point
/// at which another call may come in.
pub(crate) async fn interleaved<T>(seed: u64, futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut rng = Rng::with_seed(seed);
    // How likely one goes on while it can: short turns find other faults than long ones.
    let sticks = [0.0, 0.3, 0.8][rng.usize(0..3)];
    let woken = Arc::new(AtomicWaker::new());
    let mut children: Vec<Child<'_, T>> = futures.into_iter().map(|future| Child::new(future, woken.clone())).collect();
    let mut last = 0;
    poll_fn(|cx| {
        woken.register(cx.waker());
        // A task that never returns would keep the runtime from waking others.
        for _ in 0..64 {
            let ready = |child: &Child<'_, T>| child.done.is_none() && child.woken.ready.load(Ordering::Acquire);
            let open: Vec<usize> = (0..children.len()).filter(|i| children[*i].done.is_none()).collect();
            let able: Vec<usize> = open.iter().copied().filter(|i| ready(&children[*i])).collect();
            let (Some(any), Some(able)) = (pick(&mut rng, &open), pick(&mut rng, &able)) else {
                return if open.is_empty() { Poll::Ready(()) } else { Poll::Pending };
            };
            // One that has yielded is woken by the runtime only when all others wait too. Polled earlier, it goes on amid them.
            let next = if ready(&children[last]) && rng.f64() < sticks {
                last
            } else if rng.u8(0..4) == 0 {
                any
            } else {
                able
            };
            children[next].poll();
            last = next;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    children.into_iter().filter_map(|child| child.done).collect()
}

fn pick(rng: &mut Rng, from: &[usize]) -> Option<usize> {
    (!from.is_empty()).then(|| from[rng.usize(0..from.len())])
}

/// One of the futures and what it came to.
struct Child<'a, T> {
    future: BoxFuture<'a, T>,
    done: Option<T>,
    woken: Arc<Woken>,
    waker: Waker,
}

impl<'a, T> Child<'a, T> {
    fn new(future: BoxFuture<'a, T>, parent: Arc<AtomicWaker>) -> Self {
        let woken = Arc::new(Woken { ready: AtomicBool::new(true), parent });
        Self { future, done: None, waker: woken.clone().into(), woken }
    }

    fn poll(&mut self) {
        self.woken.ready.store(false, Ordering::Release);
        if let Poll::Ready(done) = Pin::new(&mut self.future).poll(&mut Context::from_waker(&self.waker)) {
            self.done = Some(done);
        }
    }
}

struct Woken {
    ready: AtomicBool,
    parent: Arc<AtomicWaker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, Ordering::Release);
        self.parent.wake();
    }
}

/// Lets another future of the same task come in, without leaving the task.
pub(crate) async fn breathe() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How often a check goes on: so many times as its budget allows at the speed of its fastest round, so that what else runs on the
/// machine does not matter, within the two bounds. Rounds on a slow store are as good as on a fast one, but dearer.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    last: Instant,
    fastest: Duration,
    budget: Duration,
    least: usize,
    most: usize,
}

impl Pace {
    pub(crate) fn new(budget_ms: u64, least: usize, most: usize) -> Self {
        let (begun, budget) = (Instant::now(), Duration::from_millis(budget_ms));
        Self { begun, last: begun, fastest: Duration::MAX, budget, least, most }
    }

    /// Whether there is a round with this number, the first being 0.
    pub(crate) fn goes_on(&mut self, round: usize) -> bool {
        let now = Instant::now();
        if round > 0 {
            self.fastest = self.fastest.min(now - self.last);
        }
        self.last = now;
        let afforded = self.fastest.saturating_mul(u32::try_from(round).unwrap_or(u32::MAX)) < self.budget;
        // A machine that has no time at all must not count as a store that hangs.
        let on_time = now - self.begun < 20 * self.budget;
        round < self.most && (round < self.least || (afforded && on_time))
    }
}

/// Where threads meet, again and again, without sleeping: they go on within less than a call to a store in memory takes.
#[derive(Debug)]
pub(crate) struct Gate {
    threads: usize,
    arrived: AtomicUsize,
    broken: AtomicBool,
}

impl Gate {
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), broken: AtomicBool::new(false) }
    }

    /// Waits for the others; whether the race goes on.
    pub(crate) fn wait(&self) -> bool {
        self.pass(10)
    }

    /// The same where all are to go on at the same moment: who gives the processor away comes back too late to meet anybody.
    pub(crate) fn start(&self) -> bool {
        self.pass(20_000)
    }

    fn pass(&self, patience: u32) -> bool {
        let turn = self.arrived.fetch_add(1, Ordering::SeqCst) / self.threads;
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::SeqCst) < (turn + 1) * self.threads {
            if self.broken.load(Ordering::SeqCst) {
                return false;
            }
            spins += 1;
            if spins < patience { std::hint::spin_loop() } else { thread::yield_now() }
        }
        !self.broken.load(Ordering::SeqCst)
    }

    /// Ends the race for all.
    pub(crate) fn leave(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }
}
