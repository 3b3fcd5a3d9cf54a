//! Whether a history of one register can be explained: the algorithm of Wing and Gong with the memory of Lowe.
//!
//! An operation may come next if no other that is still open had ended before it began. Trying all of these, and never the
//! same set of done operations with the same value twice, finds an order if there is one. A write whose outcome nobody knows has
//! no end, and need not come at all.

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

/// How long the search for a shorter history takes at most.
const LONGEST: Duration = Duration::from_secs(5);

/// An operation on a register; 0 is absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// What was stored; a delete is a write of 0.
    Write(u32),
    /// What was seen.
    Read(u32),
}

/// When an operation began and ended, by one clock.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// A number that is lower than that of whatever happened later.
    pub started: usize,
    /// `None` for a write that has failed, and may have happened all the same.
    pub ended: Option<usize>,
    /// What was done or seen.
    pub operation: Operation,
}

/// Whether the history, of at most 64 events, has an order in which each read returns the last write. At first the register is 0.
///
/// ```
/// use storage_conformance::linearize::{Event, Operation::{Read, Write}, is_linearizable};
///
/// let write = Event { started: 0, ended: Some(1), operation: Write(7) };
/// let read = |seen| Event { started: 2, ended: Some(3), operation: Read(seen) };
/// assert!(is_linearizable(&[write, read(7)]) && !is_linearizable(&[write, read(0)]));
/// ```
#[must_use]
pub fn is_linearizable(history: &[Event]) -> bool {
    let sure = (0..history.len()).filter(|i| history[*i].ended.is_some()).fold(0_u64, |set, i| set | 1 << i);
    let (mut tried, mut open) = (HashSet::new(), vec![(0_u64, 0_u32)]);
    while let Some((done, value)) = open.pop() {
        if done & sure == sure {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let left = || (0..history.len()).filter(move |i| done & (1 << i) == 0);
        let first_end = left().filter_map(|i| history[i].ended).min().unwrap_or(usize::MAX);
        for i in left().filter(|i| history[*i].started <= first_end) {
            let next = done | 1 << i;
            match history[i].operation {
                Operation::Write(new) => open.push((next, new)),
                Operation::Read(seen) if seen == value => open.push((next, value)),
                Operation::Read(_) => {}
            }
        }
    }
    false
}

/// The least part of a history that is not linearizable which is not either, or the least that was found within some seconds.
///
/// A write whose value is read stays, because without it that read alone would be wrong; and so does a write or delete that may
/// explain something if it happened later, or never.
#[must_use]
pub fn shortest(history: &[Event]) -> Vec<Event> {
    let (mut left, begun) = (history.to_vec(), Instant::now());
    let mut i = left.len();
    while i > 0 && begun.elapsed() < LONGEST {
        i -= 1;
        let event = left.remove(i);
        let needed = match event.operation {
            Operation::Read(_) => is_linearizable(&left),
            Operation::Write(value) => {
                let read = value != 0 && left.iter().any(|other| other.operation == Operation::Read(value));
                let doubtful = [&left[..], &[Event { ended: None, ..event }]].concat();
                read || is_linearizable(&doubtful)
            }
        };
        if needed {
            left.insert(i, event);
        } else {
            // Without it, what was needed before may be needed no more.
            i = left.len();
        }
    }
    left
}

impl fmt::Display for Event {
    /// `3..5 wrote 7`; without an end where nobody knows whether it happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", self.started)?;
        if let Some(ended) = self.ended {
            write!(f, "{ended}")?;
        }
        match self.operation {
            Operation::Write(0) => write!(f, " deleted it"),
            Operation::Write(value) => write!(f, " wrote {value}"),
            Operation::Read(0) => write!(f, " read nothing"),
            Operation::Read(value) => write!(f, " read {value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Operation, Operation::Read, Operation::Write, is_linearizable, shortest};

    fn history(events: &[(usize, usize, Operation)]) -> Vec<Event> {
        let event = |&(started, ended, operation)| Event { started, ended: Some(ended), operation };
        events.iter().map(event).collect()
    }

    #[test]
    fn explains_what_can_be_explained() {
        assert!(is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Read(1))])));
        // Two that overlap may come in either order, and a read may fall between them.
        assert!(is_linearizable(&history(&[(0, 9, Write(1)), (1, 8, Write(2)), (2, 3, Read(2)), (4, 5, Read(1))])));
        assert!(is_linearizable(&history(&[(0, 3, Write(1)), (1, 2, Read(0))])));
    }

    #[test]
    fn a_write_without_an_end_comes_at_any_time_or_never() {
        let unknown = Event { started: 2, ended: None, operation: Write(2) };
        let with = |events: &[(usize, usize, Operation)]| [history(events), vec![unknown]].concat();
        assert!(is_linearizable(&with(&[(0, 1, Write(1)), (3, 4, Read(1))])));
        assert!(is_linearizable(&with(&[(0, 1, Write(1)), (3, 4, Read(1)), (5, 6, Read(2))])));
        // Not before it began, not twice, and not taken back.
        assert!(!is_linearizable(&with(&[(0, 1, Read(2))])));
        assert!(!is_linearizable(&with(&[(3, 4, Read(2)), (5, 6, Write(1)), (7, 8, Read(2))])));
        assert!(!is_linearizable(&with(&[(0, 1, Write(1)), (3, 4, Read(2)), (5, 6, Read(1))])));
    }

    #[test]
    fn only_what_shows_the_violation_is_left() {
        let stale = history(&[(0, 1, Write(1)), (2, 3, Read(1)), (4, 5, Write(2)), (6, 7, Read(2)), (8, 9, Read(1))]);
        let events: Vec<_> = shortest(&stale).iter().map(ToString::to_string).collect();
        assert_eq!(events, ["0..1 wrote 1", "4..5 wrote 2", "8..9 read 1"]);
        // A delete that explains why nothing is there is not left out to make that wrong.
        let deleted = [(0, 1, Write(1)), (2, 3, Write(0)), (4, 5, Read(0)), (6, 7, Read(9))];
        let events: Vec<_> = shortest(&history(&deleted)).iter().map(ToString::to_string).collect();
        assert_eq!(events, ["6..7 read 9"]);
    }

    #[test]
    fn finds_planted_violations() {
        // A stale read, a read of what was never written, and two readers who disagree about the order.
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Write(2)), (4, 5, Read(1))])));
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Read(7))])));
        assert!(!is_linearizable(&history(&[(0, 9, Write(1)), (1, 2, Read(1)), (3, 4, Read(0))])));
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Write(0)), (4, 5, Read(1))])));
    }
}
