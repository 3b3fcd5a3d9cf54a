//! Whether a history of one register can be explained: the algorithm of Wing and Gong with the memory of Lowe.
//!
//! An operation may come next if no other that is still open had ended before it began. Trying all of these, and never the
//! same set of done operations with the same value twice, finds an order if there is one.

use std::collections::HashSet;

/// An operation on a register; 0 is absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Write(u32),
    Read(u32),
}

/// When an operation began and ended, by one clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) started: usize,
    pub(crate) ended: usize,
    pub(crate) operation: Operation,
}

/// Whether the history, of at most 64 events, has an order in which each read returns the last write.
pub(crate) fn is_linearizable(history: &[Event]) -> bool {
    let all = (0..history.len()).fold(0_u64, |set, i| set | 1 << i);
    let (mut tried, mut open) = (HashSet::new(), vec![(0_u64, 0_u32)]);
    while let Some((done, value)) = open.pop() {
        if done == all {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let left = || (0..history.len()).filter(move |i| done & (1 << i) == 0);
        let first_end = left().map(|i| history[i].ended).min().unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::{Event, Operation, Operation::Read, Operation::Write, is_linearizable};

    fn history(events: &[(usize, usize, Operation)]) -> Vec<Event> {
        let event = |&(started, ended, operation)| Event { started, ended, operation };
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
    fn finds_planted_violations() {
        // A stale read, a read of what was never written, and two readers who disagree about the order.
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Write(2)), (4, 5, Read(1))])));
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Read(7))])));
        assert!(!is_linearizable(&history(&[(0, 9, Write(1)), (1, 2, Read(1)), (3, 4, Read(0))])));
        assert!(!is_linearizable(&history(&[(0, 1, Write(1)), (2, 3, Write(0)), (4, 5, Read(1))])));
    }
}
