//! What the pins of a store are called, and what they keep.

use cid::Cid;
use storage_core::Result;

use crate::{
    error,
    node::Pin,
    store::Store,
    unixfs::{entries, is_leaf},
};

/// What a pin is called that keeps this content: after the store, and after the content if there is room for that.
pub(crate) fn pin_name(store: &str, content: &Cid) -> String {
    const MOST: usize = 255;
    let name = format!("{store}:{content}");
    if name.len() <= MOST { name } else { store.to_owned() }
}

/// Whether it is called as this store calls pins.
pub(crate) fn is_own(store: &Store, pin: &Pin) -> bool {
    pin.name.strip_prefix(&store.pin_name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The content that a pin of this store keeps, with the pin; without it if the content itself is pinned. `None` if that cannot be known.
pub(crate) async fn keeps(store: &Store, pin: Pin) -> Result<Option<(Cid, Option<Cid>)>> {
    let named = pin.name.get(store.pin_name.len()..).and_then(|rest| rest.strip_prefix(':'));
    if let Some(content) = named.and_then(|text| Cid::try_from(text).ok()) {
        return Ok(Some((content, Some(pin.cid))));
    }
    // A stream, whose name was not known when it was sent, or what version 1 of the records has pinned.
    if is_leaf(&pin.cid) {
        return Ok(Some((pin.cid, None)));
    }
    let block = match store.node()?.block(&pin.cid, true).await {
        Err(e) if error::is_not_found(&e) => return Ok(None),
        block => block?,
    };
    let held = entries(&pin.cid, block).unwrap_or_default();
    let own = held.iter().find(|(name, _)| held.len() == 1 && name == store.names.file().as_bytes());
    Ok(Some(own.map_or((pin.cid, None), |(_, content)| (*content, Some(pin.cid)))))
}
