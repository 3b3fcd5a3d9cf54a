//! Listings a page at a time.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use object_store::{
    Result as NativeResult,
    list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore},
    path::Path,
};
use storage_core::ListOptions;

use super::{
    AsObjectStore,
    error::{failed, not_supported},
    found, gather,
};

/// The most items of a page, as S3 has it.
const PAGE: usize = 1000;

#[async_trait]
impl PaginatedListStore for AsObjectStore {
    /// Objects and common prefixes of a page are in the order of the keys. The token is where the page ends.
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> NativeResult<PaginatedListResult> {
        let PaginatedListOptions { offset, delimiter, max_keys, page_token, extensions: _ } = options;
        let size = max_keys.unwrap_or(PAGE).min(PAGE);
        let mut list = ListOptions::new().prefix(prefix.unwrap_or_default()).limit(size.saturating_add(1));
        list.delimited = match delimiter.as_deref() {
            None | Some("") => false,
            Some("/") => true,
            Some(_) => return Err(not_supported("the only delimiter is `/`")),
        };
        list.start_after = page_token.or(offset).filter(|position| !position.is_empty());
        let items = self.storage().list_with(list).await.map_err(|e| failed(&Path::ROOT, e))?;
        let mut items: Vec<_> = items.try_collect().await.map_err(|e| failed(&Path::ROOT, e))?;
        let more = items.len() > size;
        items.truncate(size);
        let page_token = items.last().filter(|_| more).map(|item| item.position().to_owned());
        let items = futures_util::stream::iter(items.into_iter().map(Ok));
        Ok(PaginatedListResult { result: gather(found(Box::pin(items))).await?, page_token })
    }
}
