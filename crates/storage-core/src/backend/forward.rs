//! `Arc<B>` and `Box<B>` are backends: they return the inner future as it is, without a second allocation.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{EntryStream, ListStream, StorageBackend, Transaction};
use crate::{
    BackendInfo, BatchOptions, Body, CopyOptions, DeleteOptions, Entry, GetOptions, Key, ListOptions, Object,
    PutOptions, Query, RenameOptions, Result, StatOptions,
};

macro_rules! forward {
    () => {
        fn info(&self) -> &BackendInfo {
            (**self).info()
        }
        forward! { @ get<'b>(key: &'b Key, options: GetOptions) -> Result<Option<Object>> }
        forward! { @ put<'b>(key: &'b Key, body: Body, options: PutOptions) -> Result<Entry> }
        forward! { @ delete<'b>(key: &'b Key, options: DeleteOptions) -> Result<()> }
        forward! { @ stat<'b>(key: &'b Key, options: StatOptions) -> Result<Option<Entry>> }
        forward! { @ list<>(options: ListOptions) -> Result<ListStream> }
        forward! { @ get_batch<>(items: Vec<(Key, GetOptions)>) -> Result<Vec<Result<Option<Object>>>> }
        forward! { @ put_batch<>(items: Vec<(Key, Body, PutOptions)>, options: BatchOptions) -> Result<Vec<Result<Entry>>> }
        forward! { @ delete_batch<>(items: Vec<(Key, DeleteOptions)>, options: BatchOptions) -> Result<Vec<Result<()>>> }
        forward! { @ query<>(query: Query) -> Result<EntryStream> }
        forward! { @ clear<'b>(prefix: &'b str) -> Result<()> }
        forward! { @ copy<'b, 'c>(from: &'b Key, to: &'c Key, options: CopyOptions) -> Result<Entry> }
        forward! { @ rename<'b, 'c>(from: &'b Key, to: &'c Key, options: RenameOptions) -> Result<Entry> }
        forward! { @ versions<'b>(key: &'b Key) -> Result<EntryStream> }
        forward! { @ begin<>() -> Result<Arc<dyn Transaction>> }
        forward! { @ health<>() -> Result<()> }
        forward! { @ disconnect<>() -> Result<()> }
    };
    (@ $method:ident<$($life:lifetime),*>($($arg:ident: $type:ty),*) -> $result:ty) => {
        fn $method<'a, $($life,)* 'async_trait>(&'a self, $($arg: $type),*) -> BoxFuture<'async_trait, $result>
        where
            'a: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            (**self).$method($($arg),*)
        }
    };
}

#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend + ?Sized> StorageBackend for Arc<B> {
    forward! {}
}

#[deny(clippy::missing_trait_methods)]
impl<B: StorageBackend + ?Sized> StorageBackend for Box<B> {
    forward! {}
}

macro_rules! forward_transaction {
    ($($pointer:ident)*) => { $(
        #[async_trait]
        impl<T: Transaction + ?Sized> Transaction for $pointer<T> {
            async fn commit(&self) -> Result<()> {
                (**self).commit().await
            }

            async fn rollback(&self) -> Result<()> {
                (**self).rollback().await
            }
        }
    )* };
}
forward_transaction! { Arc Box }
