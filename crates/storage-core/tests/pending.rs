//! Writes that are given up: every order of the caller's steps and the work's, and both at once on two threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
};

use storage_core::{
    ErrorKind, Key, Result,
    pending::{Commit, Keys, Settled, Writes},
};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn poll(settled: &mut Settled) -> Poll<Result<()>> {
    std::pin::Pin::new(settled).poll(&mut Context::from_waker(Waker::noop()))
}

fn is_settled(mut settled: Settled) -> bool {
    poll(&mut settled).is_ready()
}

#[test]
fn who_drops_first_decides_for_all_orders_of_the_steps() {
    // The work begins its commit and ends; the caller drops before the first, between the two, or behind both.
    for dropped_after in 0..=2 {
        let writes = Writes::new();
        let (caller, commit) = writes.begin(&key("k"));
        let (mut caller, mut commit) = (Some(caller), Some(commit));
        for step in 0..=2 {
            if step == dropped_after {
                caller = None;
                assert_eq!(is_settled(writes.settled(&key("k"))), dropped_after != 1, "dropped after {dropped_after}");
            }
            match step {
                0 => assert_eq!(commit.as_ref().unwrap().begin().is_ok(), dropped_after > 0),
                1 => {
                    assert_eq!(commit.as_ref().unwrap().check().is_err(), dropped_after < 2);
                    commit = None;
                }
                _ => {}
            }
        }
        assert!(is_settled(writes.settled(&key("k"))));
        assert!(caller.is_none());
    }
}

#[test]
fn calls_wait_for_the_keys_they_touch_alone() {
    let touched = [
        (Keys::from(&key("a/b")), true),
        (Keys::from(vec![key("c"), key("a/b")]), true),
        (Keys::prefix("a/"), true),
        (Keys::prefix(""), true),
        (Keys::from(&key("a/c")), false),
        (Keys::from(vec![]), false),
        (Keys::prefix("a/b/"), false),
    ];
    for (keys, expected) in touched {
        let writes = Writes::new();
        let (caller, commit) = writes.begin(keys.clone());
        commit.begin().unwrap();
        drop(caller);
        assert_eq!(!is_settled(writes.settled(&key("a/b"))), expected, "{keys:?}");
        assert_eq!(!is_settled(writes.settled_keys(&[key("d"), key("a/b")])), expected, "{keys:?}");
        drop(commit);
        assert!(is_settled(writes.settled(&key("a/b"))));
    }
    let writes = Writes::new();
    let (caller, commit) = writes.begin(Keys::prefix("a/b"));
    commit.begin().unwrap();
    drop(caller);
    for (prefix, waits) in [("", true), ("a", true), ("a/b", true), ("a/bc", true), ("a/c", false), ("b", false)] {
        assert_eq!(!is_settled(writes.settled_prefix(prefix)), waits, "{prefix:?}");
    }
}

#[test]
fn a_batch_stops_where_it_is_when_it_is_given_up() {
    let writes = Writes::new();
    let (caller, commit) = writes.begin(vec![key("a"), key("b")]);
    commit.begin().unwrap();
    commit.begin().unwrap();
    drop(caller);
    assert!(commit.check().is_err() && commit.begin().is_err());
    assert!(!is_settled(writes.settled(&key("b"))));
}

#[test]
fn a_cancelled_write_can_be_aborted() {
    let writes = Writes::new();
    let (caller, commit) = writes.begin(&key("k"));
    assert!(caller.cancel() && commit.begin().is_err());
    let (caller, commit) = writes.begin(&key("k"));
    commit.begin().unwrap();
    assert!(!caller.cancel());
}

#[test]
fn who_waits_for_a_lost_write_is_told() {
    let writes = Writes::new();
    let (caller, commit) = writes.begin(&key("k"));
    commit.begin().unwrap();
    drop(caller);
    let mut waiting = writes.settled(&key("k"));
    assert!(poll(&mut waiting).is_pending());
    commit.lose();
    let Poll::Ready(Err(e)) = poll(&mut waiting) else { panic!("expected an error") };
    assert_eq!(e.kind(), ErrorKind::Timeout);
    assert!(is_settled(writes.settled(&key("k"))));
}

#[test]
fn on_two_threads_nothing_lands_behind_a_later_call() {
    let (send, receive) = mpsc::channel::<(Commit, Arc<AtomicU32>, u32)>();
    let worker = thread::spawn(move || {
        while let Ok((commit, value, spin)) = receive.recv() {
            (0..spin).for_each(|_| std::hint::spin_loop());
            if commit.begin().is_ok() {
                value.store(1, Ordering::Relaxed);
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let writes = Writes::new();
    let mut random = fastrand::Rng::with_seed(7);
    let mut landed = 0;
    for round in 0..3000 {
        let value = Arc::new(AtomicU32::new(0));
        let (caller, commit) = writes.begin(&key("k"));
        send.send((commit, value.clone(), random.u32(..200))).unwrap();
        (0..random.u32(..400)).for_each(|_| std::hint::spin_loop());
        drop(caller);
        runtime.block_on(writes.settled(&key("k"))).unwrap();
        // What the later call finds stays.
        let found = value.swap(2, Ordering::Relaxed);
        landed += found;
        (0..random.u32(..200)).for_each(|_| std::hint::spin_loop());
        assert_eq!(value.load(Ordering::Relaxed), 2, "round {round}: a write landed late");
    }
    drop(send);
    worker.join().unwrap();
    println!("{landed} of 3000 had begun");
}
