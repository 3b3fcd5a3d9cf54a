//! Whether an order explains what several clients have seen of several keys, and the part of it that none explains.
//!
//! A call is one or more steps, each of which takes effect at one moment between the call's begin and its end: a copy first
//! reads and later writes, a listing looks at each key by itself. The search is that of [`linearize`](crate::linearize) for more
//! than one register.

mod shortest;

use std::{collections::HashSet, fmt::Write};

use storage_core::ErrorKind;

pub(crate) use shortest::shortest;

/// What is under a key: the number of its value, 0 for none, and that of its etag, 0 where nobody knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) value: u32,
    pub(crate) etag: u32,
}

/// What a step finds or does. Keys and slots are numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// The key has this value, `None` for one that the call did not tell.
    Seen(usize, Option<u32>, u32),
    /// It has a value.
    Present(usize),
    /// It has no value, or one with another etag.
    Other(usize, u32),
    Write(usize, State),
    /// Keeps in a slot what is under the key, which has a value.
    Take(usize, usize),
    /// Keeps in a slot what is under the key, or that nothing is.
    Keep(usize, usize),
    /// Puts back what was kept.
    Restore(usize, usize),
    /// Writes what was kept, under an etag of its own.
    Paste(usize, usize, u32),
    /// What was kept is still under the key.
    Still(usize, usize),
}

impl Action {
    /// The key that it is about.
    fn key(&self) -> usize {
        match *self {
            Self::Seen(key, ..)
            | Self::Present(key)
            | Self::Other(key, _)
            | Self::Write(key, _)
            | Self::Restore(key, _)
            | Self::Paste(key, ..)
            | Self::Still(key, _)
            | Self::Take(_, key)
            | Self::Keep(_, key) => key,
        }
    }

    /// Whether it changes nothing.
    fn reads(&self) -> bool {
        matches!(self, Self::Seen(..) | Self::Present(_) | Self::Other(..) | Self::Still(..))
    }

    /// Whether what it finds is so.
    fn holds(&self, keys: usize, state: &[State]) -> bool {
        let same = |a: u32, b: u32| a == b || a == 0 || b == 0;
        match *self {
            Self::Seen(key, value, etag) => {
                let here = state[key];
                value.is_none_or(|value| value == here.value) && (here.value == 0 || same(etag, here.etag))
            }
            Self::Present(key) | Self::Take(_, key) => state[key].value != 0,
            Self::Other(key, etag) => state[key].value == 0 || state[key].etag == 0 || state[key].etag != etag,
            Self::Still(key, slot) => {
                let (here, kept) = (state[key], state[keys + slot]);
                here.value == kept.value && same(here.etag, kept.etag)
            }
            Self::Write(..) | Self::Keep(..) | Self::Restore(..) | Self::Paste(..) => true,
        }
    }

    /// Changes what it changes; whether it can.
    fn apply(&self, keys: usize, state: &mut [State]) -> bool {
        if !self.holds(keys, state) {
            return false;
        }
        match *self {
            Self::Write(key, new) => state[key] = new,
            Self::Take(slot, key) | Self::Keep(slot, key) => state[keys + slot] = state[key],
            Self::Restore(key, slot) => state[key] = state[keys + slot],
            Self::Paste(key, slot, etag) => state[key] = State { value: state[keys + slot].value, etag },
            Self::Seen(..) | Self::Present(_) | Self::Other(..) | Self::Still(..) => {}
        }
        true
    }
}

/// Actions that happen at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) actions: Vec<Action>,
    /// It comes after the step before it of the same call.
    pub(crate) next: bool,
    /// Nobody knows whether it happens, nor when.
    pub(crate) perhaps: bool,
}

impl Step {
    pub(crate) fn new(actions: impl Into<Vec<Action>>) -> Self {
        Self { actions: actions.into(), next: false, perhaps: false }
    }

    pub(crate) fn then(actions: impl Into<Vec<Action>>) -> Self {
        Self { next: true, ..Self::new(actions) }
    }

    pub(crate) fn perhaps(self) -> Self {
        Self { perhaps: true, ..self }
    }

    fn reads(&self) -> bool {
        self.actions.iter().all(Action::reads)
    }
}

/// A call as its client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: usize,
    pub(crate) what: String,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) started: usize,
    pub(crate) ended: usize,
    pub(crate) steps: Vec<Step>,
}

impl Call {
    /// Whether it is about the key, or may be.
    pub(crate) fn concerns(&self, key: usize) -> bool {
        let mut actions = self.steps.iter().flat_map(|step| &step.actions).peekable();
        actions.peek().is_none() || actions.any(|action| action.key() == key)
    }
}

/// A step with its place in the history.
struct Placed<'a> {
    step: &'a Step,
    started: usize,
    /// `usize::MAX` where nobody knows.
    ended: usize,
    /// The steps that come before it, as bits.
    after: u64,
    /// The writes that began after its call had ended, as bits: none of them comes before it, if it comes at all.
    before: u64,
    reads: bool,
}

/// The steps of the calls, then those of the calls that nobody knows to have happened.
fn placed<'a>(calls: &'a [Call], doubtful: &'a [Call]) -> Vec<Placed<'a>> {
    let mut all: Vec<Placed<'a>> = Vec::new();
    for (i, call) in calls.iter().chain(doubtful).enumerate() {
        for step in &call.steps {
            let after = if step.next { 1 << (all.len() - 1) } else { 0 };
            let ended = if step.perhaps || i >= calls.len() { usize::MAX } else { call.ended };
            all.push(Placed { step, started: call.started, ended, after, before: 0, reads: step.reads() });
        }
    }
    assert!(all.len() <= 64, "the check makes histories that are too long: {} steps", all.len());
    let mut place: usize = calls.iter().map(|call| call.steps.len()).sum();
    for call in doubtful {
        let began_later = |(i, other): (usize, &Placed<'_>)| u64::from(!other.reads && other.started > call.ended) << i;
        let before = all.iter().enumerate().map(began_later).fold(0, |all, bit| all | bit);
        for _ in &call.steps {
            all[place].before = before;
            place += 1;
        }
    }
    all
}

/// Whether the calls, of at most 64 steps, have an order that explains them. At first no key has a value.
pub(crate) fn explained(calls: &[Call], keys: usize) -> bool {
    explained_with(calls, &[], keys)
}

/// As [`explained`], where each step of the doubtful calls happens within its call's time, or never.
fn explained_with(calls: &[Call], doubtful: &[Call], keys: usize) -> bool {
    let steps = placed(calls, doubtful);
    let slot = |action: &Action| match action {
        Action::Take(slot, _) | Action::Keep(slot, _) => slot + 1,
        _ => 0,
    };
    let slots = steps.iter().flat_map(|placed| &placed.step.actions).map(slot).max().unwrap_or(0);
    let mut sure = 0_u64;
    for (i, step) in steps.iter().enumerate().filter(|(_, step)| step.ended != usize::MAX) {
        debug_assert!(step.started <= step.ended, "a call ends after it began");
        sure |= 1 << i;
    }
    let (mut tried, mut open, mut looked) = (HashSet::new(), vec![(0_u64, vec![State::default(); keys + slots])], 0);
    while let Some((mut done, state)) = open.pop() {
        let mut able;
        loop {
            let mut first_end = usize::MAX;
            for (i, step) in steps.iter().enumerate() {
                if done & (1 << i) == 0 && step.ended < first_end {
                    first_end = step.ended;
                }
            }
            let (mut writes, mut fits) = (Vec::new(), 0);
            for (i, step) in steps.iter().enumerate() {
                if done & (1 << i) != 0
                    || step.started > first_end
                    || step.after & !done != 0
                    || step.before & done != 0
                {
                    continue;
                }
                if !step.reads {
                    writes.push(i);
                } else if step.step.actions.iter().all(|action| action.holds(keys, &state)) {
                    fits |= 1 << i;
                }
            }
            able = writes;
            // What only reads may come as soon as it fits: it is in nobody's way.
            if fits == 0 {
                break;
            }
            done |= fits;
        }
        if done & sure == sure {
            return true;
        }
        looked += 1;
        // Most histories are explained at once.
        if looked > 100 && !tried.insert((done, state.clone())) {
            continue;
        }
        // The one that ended first is tried first.
        able.sort_by_key(|i| std::cmp::Reverse(steps[*i].ended));
        for i in able {
            if let Some(next) = after(steps[i].step, keys, &state) {
                open.push((done | 1 << i, next));
            }
        }
    }
    false
}

/// The state after a step, if it can come now.
fn after(step: &Step, keys: usize, state: &[State]) -> Option<Vec<State>> {
    let mut next = state.to_vec();
    step.actions.iter().all(|action| action.apply(keys, &mut next)).then_some(next)
}

/// One line for each call.
pub(crate) fn text(calls: &[Call]) -> String {
    let mut calls: Vec<&Call> = calls.iter().collect();
    calls.sort_by_key(|call| call.started);
    let mut text = String::new();
    for call in calls {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    {:>3}..{:<3} client {}: {}", call.started, call.ended, call.client, call.what);
        let _ = match call.error {
            None if call.steps.is_empty() => write!(text, " => wrong in itself, as said below"),
            Some(kind) => write!(text, " => {kind:?}"),
            None => Ok(()),
        };
        for action in call.steps.iter().flat_map(|step| &step.actions) {
            let etag = |etag: &u32| if *etag == 0 { String::new() } else { format!(" etag {etag}") };
            let _ = match action {
                Action::Seen(key, Some(0), _) => write!(text, ", saw no {}", name(*key)),
                Action::Seen(key, Some(value), seen) => write!(text, ", saw {} = {value}{}", name(*key), etag(seen)),
                Action::Write(key, State { value: 0, .. }) => write!(text, ", removed {}", name(*key)),
                Action::Write(key, new) => write!(text, ", wrote {} = {}{}", name(*key), new.value, etag(&new.etag)),
                Action::Paste(key, _, new) => write!(text, ", wrote {}{}", name(*key), etag(new)),
                _ => Ok(()),
            };
        }
    }
    text
}

/// Keys by letters: `a`, `b`, ….
pub(crate) fn name(key: usize) -> char {
    char::from(b'a' + key as u8)
}

#[cfg(test)]
mod tests {
    use super::{Action, Action::*, Call, State, Step, explained, shortest};

    pub(super) fn call(started: usize, ended: usize, steps: impl Into<Vec<Step>>) -> Call {
        Call { client: 0, what: String::new(), error: None, started, ended, steps: steps.into() }
    }

    pub(super) fn one(started: usize, ended: usize, actions: impl Into<Vec<Action>>) -> Call {
        call(started, ended, [Step::new(actions)])
    }

    pub(super) fn put(key: usize, value: u32) -> Action {
        Write(key, State { value, etag: value })
    }

    pub(super) fn saw(key: usize, value: u32) -> Action {
        Seen(key, Some(value), value)
    }

    fn rename(started: usize, ended: usize) -> Call {
        let steps = [
            Step::new([Take(0, 0)]),
            Step::then([Paste(1, 0, 9)]),
            Step::then([Still(0, 0), Write(0, State::default())]),
        ];
        call(started, ended, steps)
    }

    #[test]
    fn explains_a_copy_that_takes_its_time() {
        let copy = call(2, 5, [Step::new([Take(0, 0)]), Step::then([Paste(1, 0, 9)])]);
        let calls = [one(0, 1, [put(0, 1)]), copy, one(3, 4, [put(0, 2)]), one(6, 7, [Seen(1, Some(1), 9), saw(0, 2)])];
        assert!(explained(&calls, 2));
        let never =
            [one(0, 1, [put(0, 1)]), calls[1].clone(), one(6, 7, [put(0, 2)]), one(8, 9, [Seen(1, Some(2), 0)])];
        assert!(!explained(&never, 2));
    }

    #[test]
    fn a_rename_never_takes_what_was_written_meanwhile() {
        let put_meanwhile = [one(0, 1, [put(0, 1)]), rename(2, 5), one(3, 4, [put(0, 2)])];
        let with = |seen: Call| [&put_meanwhile[..], &[seen]].concat();
        assert!(explained(&with(one(6, 7, [saw(0, 2), Seen(1, Some(1), 9)])), 2));
        assert!(explained(&with(one(6, 7, [Seen(0, Some(0), 0), Seen(1, Some(2), 9)])), 2));
        assert!(!explained(&with(one(6, 7, [Seen(0, Some(0), 0), Seen(1, Some(1), 9)])), 2));
    }

    #[test]
    fn what_happens_at_one_moment_is_not_taken_apart() {
        let skew = [
            one(0, 1, [put(0, 1), put(1, 2)]),
            one(2, 9, [saw(0, 1), saw(1, 2), put(0, 3)]),
            one(3, 8, [saw(0, 1), saw(1, 2), put(1, 4)]),
        ];
        assert!(!explained(&skew, 2));
        assert_eq!(shortest(skew.to_vec(), 2).len(), 3);
    }
}
