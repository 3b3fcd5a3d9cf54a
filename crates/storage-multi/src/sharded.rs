//! The strategy `sharded`: each value is in one of the stores.

mod backend;
mod child;
mod open;
mod placement;

use std::sync::Arc;

use storage_core::BackendInfo;

use child::Child;
pub(crate) use open::Sharding;
use placement::Placement;

/// Several stores as one, each of which holds a share of the values. Clones share it.
#[derive(Clone, Debug)]
pub struct Sharded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    info: BackendInfo,
    /// In the order of their names.
    children: Vec<Child>,
    placement: Placement,
}
