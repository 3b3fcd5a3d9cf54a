//! Backends with one planted fault each, and the checks that must find it: the suite's own test.
//!
//! A check that no saboteur can fail proves nothing. Each saboteur is a sound backend with a wrapper around it; the table
//! entry beside each says exactly which checks fail on it.

mod batches;
mod below;
mod commits;
mod conditions;
mod conflicts;
mod copies;
mod damage;
mod entries;
mod keys;
mod lengths;
mod late;
mod lifecycle;
mod listings;
mod metadata;
mod network;
mod numbers;
mod presigned;
mod processes;
mod queries;
mod races;
mod ranges;
mod readonly;
mod streams;
mod transactions;
mod values;
mod versions;
mod wrap;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use storage_core::{Capabilities, Result, StorageBackend};

use crate::{Namespace, Target};
pub use damage::{damage, damageable};
pub(crate) use presigned::{Flaw, Presigns};
use readonly::ReadOnly;
pub use wrap::{Fault, Sides};
pub(crate) use wrap::{within, wrap};

/// A backend with one fault.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Saboteur {
    /// The group of faults it belongs to.
    pub group: &'static str,
    /// What it does wrong, as one word.
    pub name: &'static str,
    /// Exactly the checks that fail.
    pub catches: &'static [&'static str],
    /// Capabilities that its target pins.
    pub pins: Capabilities,
    /// What it must be around.
    pub base: Base,
    pub(crate) wrap: Wrap,
}

/// How a backend becomes one with the fault.
pub(crate) type Wrap = fn(Arc<dyn StorageBackend>, Namespace) -> Opening;
/// A backend that is being opened.
pub(crate) type Opening = BoxFuture<'static, Result<Arc<dyn StorageBackend>>>;

/// The sound backend below a saboteur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// One that can do everything, and lives as long as the process; its values are of up to a megabyte.
    Memory,
    /// The same with values of any size.
    Large,
    /// One in the namespace's directory, which several processes share.
    Files,
}

impl Saboteur {
    /// A target with this fault in the backend that the factory opens.
    pub fn target<F, Fut, B>(&self, factory: F) -> Target
    where
        F: Fn(Namespace) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B>> + Send + 'static,
        B: StorageBackend,
    {
        let (wrap, factory) = (self.wrap, Arc::new(factory));
        let to_read = factory.clone();
        let open = move |namespace: Namespace| {
            let opening = factory(namespace.clone());
            async move { wrap(Arc::new(opening.await?), namespace).await }
        };
        let open_to_read = move |namespace: Namespace| {
            let opening = to_read(namespace.clone());
            async move { wrap(wrap::wrap(Arc::new(opening.await?), ReadOnly).await?, namespace).await }
        };
        Target::new(self.name, open).read_only(open_to_read).requires(self.pins)
    }
}

/// No fault, in the same wrapper: what every saboteur would be without its fault.
pub const SOUND: Saboteur = Saboteur {
    group: module_path!(),
    name: "sound",
    catches: &[],
    pins: Capabilities::new(),
    base: Base::Memory,
    wrap: |inner, _| wrap::wrap(inner, Sound),
};

#[derive(Debug)]
pub(crate) struct Sound;

#[storage_core::async_trait]
impl Fault for Sound {}

/// No fault, with batches, queries, clear, copy and rename made of the other methods.
#[derive(Debug)]
pub(crate) struct Derived;

#[storage_core::async_trait]
impl Fault for Derived {
    const DERIVED: bool = true;
}

/// A store that presigns requests, which a small server of its own answers: for tests of layers.
#[must_use]
pub fn presigning(inner: Arc<dyn StorageBackend>) -> Arc<dyn StorageBackend> {
    Arc::new(wrap::Wrapped::new(inner, Presigns::with(Flaw::Sound)))
}

/// How keys begin that others have put into the store of a saboteur: its target must plant one.
pub const FOREIGN: &str = "foreign ";
/// The secret that a saboteur gives away: its target must name it.
pub const PASSWORD: &str = "correct \"horse\" battery 100% staple?";

/// All saboteurs.
#[must_use]
pub fn saboteurs() -> Vec<Saboteur> {
    [
        values::ALL,
        numbers::ALL,
        entries::ALL,
        keys::ALL,
        lengths::ALL,
        metadata::ALL,
        batches::ALL,
        listings::ALL,
        queries::ALL,
        ranges::ALL,
        streams::ALL,
        conditions::ALL,
        versions::ALL,
        transactions::ALL,
        conflicts::ALL,
        commits::ALL,
        races::ALL,
        copies::ALL,
        damage::ALL,
        lifecycle::ALL,
        readonly::ALL,
        late::ALL,
        below::ALL,
        processes::ALL,
        network::ALL,
        presigned::ALL,
        &[
            values::LOSES_THE_TAIL,
            keys::FOLLOWS_PATHS,
            lifecycle::TAKES_BACK,
            below::GOES_AROUND,
            lifecycle::SIX_CONNECTIONS,
            lifecycle::DECLARES_BY_CHANCE,
        ],
    ]
    .concat()
}

/// A table of saboteurs: `name = fault => ["group/check", …];`.
macro_rules! table {
    ($($name:ident = $fault:expr => [$($check:literal),* $(,)?];)*) => {
        $crate::saboteurs::table! { Memory, |inner, _, fault| super::wrap::wrap(inner, fault); $($name = $fault => [$($check),*];)* }
    };
    // Around another base, or with more than a fault around it.
    ($base:ident, $wrap:expr; $($name:ident = $fault:expr => [$($check:literal),* $(,)?];)*) => {
        pub(super) const ALL: &[super::Saboteur] = &[$(super::Saboteur {
            group: module_path!(),
            name: stringify!($name),
            catches: &[$($check),*],
            pins: storage_core::Capabilities::new(),
            base: super::Base::$base,
            wrap: |inner, namespace| $wrap(inner, namespace, $fault),
        }),*];
    };
}
use table;
