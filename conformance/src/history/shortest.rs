//! From a history that no order explains to the least part of it that none explains.

use std::time::{Duration, Instant};

use super::{Action, Call, State, Step, explained_with};

/// How long the search for a shorter history takes at most.
const LONGEST: Duration = Duration::from_secs(5);

/// The least part of a history without explanation that has none either, or the least that was found within some seconds.
///
/// What is left out still may have happened: what is shown has no explanation by anything that was left out.
pub(crate) fn shortest(mut calls: Vec<Call>, keys: usize) -> Vec<Call> {
    let begun = Instant::now();
    let mut left_out: Vec<Call> = Vec::new();
    let mut i = calls.len();
    while i > 0 && begun.elapsed() < LONGEST {
        i -= 1;
        let call = calls.remove(i);
        let reads = call.steps.iter().all(Step::reads);
        if !reads {
            left_out.push(call.clone());
        }
        let needed = || call.steps.iter().flat_map(|step| &step.actions).any(|action| seen(&calls, action));
        if explained_with(&calls, &left_out, keys) || needed() {
            if !reads {
                left_out.pop();
            }
            calls.insert(i, call);
        } else {
            // Without it, what was needed before may be needed no more.
            i = calls.len();
        }
    }
    calls
}

/// Whether anybody needs what this action writes: has seen it, or has found some value where nobody else has written one.
fn seen(calls: &[Call], action: &Action) -> bool {
    let actions = || calls.iter().flat_map(|call| &call.steps).flat_map(|step| &step.actions);
    let found = |key: usize| {
        let writes = |a: &Action| match *a {
            Action::Write(other, new) => other == key && new.value != 0,
            Action::Paste(other, ..) => other == key,
            _ => false,
        };
        let finds = |a: &Action| match *a {
            Action::Present(other) | Action::Take(_, other) => other == key,
            Action::Seen(other, None, _) => other == key,
            _ => false,
        };
        actions().any(finds) && !actions().any(writes)
    };
    let removes = |a: &Action, key: usize| matches!(*a, Action::Write(other, new) if other == key && new.value == 0);
    if let Action::Write(key, State { value: 0, .. }) = *action {
        // Somebody has found nothing, and nothing else has made it so.
        let missed = |a: &Action| matches!(*a, Action::Seen(other, Some(0), _) if other == key);
        return actions().any(missed) && !actions().any(|a| removes(a, key));
    }
    let (key, new) = match *action {
        Action::Write(key, new) if new.value != 0 => (key, new),
        // No value has this number.
        Action::Paste(key, _, etag) => (key, State { value: u32::MAX, etag }),
        _ => return false,
    };
    let written =
        |value: u32| actions().any(|a| matches!(a, Action::Write(other, new) if *other == key && new.value == value));
    let pastes = matches!(action, Action::Paste(..));
    let saw = |a: &Action| match *a {
        // What nobody else has written there, a copy may have brought.
        Action::Seen(other, Some(value), _) if pastes && other == key && value != 0 && !written(value) => true,
        Action::Seen(_, value, etag) => value == Some(new.value) || (etag != 0 && etag == new.etag),
        _ => false,
    };
    actions().any(saw) || found(key)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Action::*,
            State, Step, explained,
            tests::{call, one, put, saw},
        },
        shortest,
    };

    #[test]
    fn what_a_copy_takes_is_not_left_out() {
        let copy = |started, ended, etag| {
            call(started, ended, [Step::new([Take(0, 0)]), Step::then([saw(1, 0), Paste(1, 0, etag)])])
        };
        let calls = vec![one(0, 1, [put(0, 1)]), one(2, 5, [saw(1, 0), put(1, 2)]), copy(3, 4, 9)];
        assert_eq!(shortest(calls, 2).len(), 3);
    }

    #[test]
    fn a_copy_that_brought_what_was_seen_is_not_left_out() {
        let copy = call(2, 7, [Step::new([Take(0, 0)]), Step::then([Paste(1, 0, 9)])]);
        let calls =
            [one(0, 1, [put(0, 1)]), copy, one(3, 4, [saw(1, 1)]), one(8, 9, [put(1, 3)]), one(10, 11, [saw(1, 1)])];
        assert!(!explained(&calls, 2));
        assert!(shortest(calls.to_vec(), 2).iter().any(|call| call.steps.len() == 2));
    }

    #[test]
    fn the_delete_whose_absence_was_seen_is_not_left_out() {
        let remove = Write(0, State::default());
        let calls = [one(0, 1, [put(0, 1)]), one(2, 3, [remove]), one(4, 5, [saw(0, 0)]), one(6, 7, [saw(0, 1)])];
        assert!(!explained(&calls, 1));
        let left = shortest(calls.to_vec(), 1);
        let misses = left.iter().any(|call| call.steps[0].actions == [saw(0, 0)]);
        assert!(!misses || left.iter().any(|call| call.steps[0].actions == [remove]));
    }

    #[test]
    fn what_one_of_two_deletes_explains_is_not_shown_as_the_fault() {
        let remove = |key| Write(key, State::default());
        let calls = [
            one(0, 1, [remove(0)]),
            one(2, 3, [put(0, 1)]),
            one(5, 6, [saw(0, 0)]),
            one(4, 7, [remove(0)]),
            one(8, 9, [put(1, 2)]),
            one(10, 11, [saw(1, 0)]),
        ];
        let left = shortest(calls.to_vec(), 2);
        assert!(left.iter().all(|call| call.steps[0].actions[0].key() == 1), "{left:?}");
        assert_eq!(left.len(), 2);
    }

    #[test]
    fn what_has_no_part_in_it_is_left_out() {
        let calls =
            vec![one(0, 1, [put(1, 5)]), one(2, 3, [put(0, 1)]), one(4, 5, [saw(1, 5)]), one(6, 7, [saw(0, 3)])];
        assert_eq!(shortest(calls, 2).len(), 1);
    }
}
