//! Right stores that are unusual: the suite must pass every one of them.
//!
//! They are the counterpart of [`saboteurs`](crate::saboteurs), made in the same way, and their lists of checks that fail are empty. A
//! check that one of them fails asks for more than the contract does.

mod modest;
mod waits;
mod weak;

use std::{sync::Arc, time::Duration};

use storage_core::Capabilities;

use crate::{
    saboteurs::{Base, Derived, Flaw, Presigns, Saboteur, Sound, Wrap, wrap},
    selection::variable,
};
use waits::Waits;

/// All but the slow one.
pub const UNUSUAL: &[Saboteur] = &[
    // Every future and every poll of a stream is pending once.
    store("yields_at_every_await", |inner, _| wrap(Arc::new(Waits::new(inner, Duration::ZERO)), Sound)),
    // The same of listings alone: their caller waits, and those who write never do.
    store("listings_yield", |inner, _| wrap(inner, waits::Listings)),
    // Values of up to 1,000 bytes, and the least that keys and metadata may be limited to.
    store("takes_only_little", |inner, _| wrap(inner, modest::Small)),
    // No capability, no etags, no dates, and a put in two steps.
    store("declares_nothing", |inner, namespace| wrap(inner, modest::Plain::new(&namespace, false))),
    // Etags that equal bytes share, dates in whole seconds, answers to writes without dates, reads of bytes alone without
    // more of the entry than they need, and values in tiny pieces.
    store("weak_and_coarse", |inner, _| wrap(inner, weak::Weak)),
    // A small server answers requests that it presigns.
    store("presigns", |inner, _| wrap(inner, Presigns::with(Flaw::Sound))),
];

/// A store of bytes alone, without metadata, etags and dates, which refuses keys of every shape that it may: for the profile
/// `basic`.
pub const BYTES_ALONE: Saboteur =
    store("bytes_alone", |inner, namespace| wrap(inner, modest::Plain::new(&namespace, true)));

/// A store that needs so many milliseconds a call, and a call for each item: `STORAGE_CONFORMANCE_LATENCY_MS`, 2 unless set.
pub const SLOW: Saboteur = store("slow", |inner, _| {
    let ms = variable("LATENCY_MS").ok().flatten().and_then(|ms| ms.parse().ok());
    wrap(Arc::new(Waits::new(inner, Duration::from_millis(ms.unwrap_or(2)))), Derived)
});

const fn store(name: &'static str, wrap: Wrap) -> Saboteur {
    Saboteur { group: module_path!(), name, catches: &[], pins: Capabilities::new(), base: Base::Memory, wrap }
}
