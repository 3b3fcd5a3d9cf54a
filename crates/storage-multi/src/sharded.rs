//! The strategy `sharded`: each value is in one of the stores.

mod backend;
mod between;
mod child;
mod listing;
mod open;
mod pace;
mod placement;
mod rebalance;
mod view;

use std::sync::Arc;

use storage_core::BackendInfo;

use child::Child;
pub use open::ShardedOptions;
pub(crate) use open::Sharding;
pub use pace::{RebalanceOptions, Rebalanced};
use placement::Placement;
use view::Views;

/// Several stores as one, each of which holds a share of the values. Clones share it.
#[derive(Clone, Debug)]
pub struct Sharded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    info: BackendInfo,
    /// In the order of their names.
    children: Vec<Child>,
    /// Of the markers.
    set: String,
    views: Views,
}
