//! Keys and prefixes of certain lengths that are lost or cut.

use storage_core::{
    DeleteOptions, EntryStream, ListItem, ListOptions, ListStream, Query, Result, StorageBackend, async_trait,
};

use super::{
    table,
    wrap::{Fault, Sides, listed, streamed},
};

table! {
    prefix_of_64_bytes_hides_its_key = PrefixHidesItsKey => ["keys/every_length", "keys/every_length_in_queries"];
    prefixes_are_cut_at_255 = CutsPrefixes { at: 255, queries: false } => ["keys/every_length"];
    queried_prefixes_are_cut_at_255 = CutsPrefixes { at: 255, queries: true } => ["keys/every_length_in_queries"];
    clear_leaves_keys_of_1000_bytes = ClearLeavesLongKeys => ["keys/every_length"];
}

/// Keys are kept in pieces of 64 bytes. The one that ends with the last of them is looked for one piece too deep.
#[derive(Debug)]
struct PrefixHidesItsKey;

#[async_trait]
impl Fault for PrefixHidesItsKey {
    const DERIVED: bool = true;

    async fn list(&self, s: Sides<'_>, options: ListOptions) -> Result<ListStream> {
        let prefix = options.prefix.clone();
        let mut items = listed(s, options).await?;
        if !prefix.is_empty() && prefix.len().is_multiple_of(64) && items.len() > 1 {
            items.retain(|item| item.position() != prefix);
        }
        Ok(streamed(items))
    }
}

/// The column of the keys is indexed up to a number of bytes, and so are prefixes compared.
#[derive(Debug)]
struct CutsPrefixes {
    at: usize,
    queries: bool,
}

impl CutsPrefixes {
    fn cut(&self, prefix: &mut String) {
        prefix.truncate(prefix.floor_char_boundary(self.at));
    }
}

#[async_trait]
impl Fault for CutsPrefixes {
    async fn list(&self, s: Sides<'_>, mut options: ListOptions) -> Result<ListStream> {
        if !self.queries && !options.delimited {
            self.cut(&mut options.prefix);
        }
        s.inner.list(options).await
    }

    async fn query(&self, s: Sides<'_>, mut query: Query) -> Result<EntryStream> {
        if self.queries {
            self.cut(&mut query.prefix);
        }
        s.inner.query(query).await
    }
}

/// A clear collects what it deletes in rows that are a little too short.
#[derive(Debug)]
struct ClearLeavesLongKeys;

#[async_trait]
impl Fault for ClearLeavesLongKeys {
    async fn clear(&self, s: Sides<'_>, prefix: &str) -> Result<()> {
        for item in listed(s, ListOptions::new().prefix(prefix)).await? {
            if let ListItem::Entry(entry) = item
                && entry.key.as_str().len() < 1000
            {
                s.inner.delete(&entry.key, DeleteOptions::new()).await?;
            }
        }
        Ok(())
    }
}
