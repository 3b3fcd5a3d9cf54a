//! `Arc<B>` and `Box<B>` are backends: they return the inner future as it is, without a second allocation.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{StorageBackend, Transaction};
use crate::{BackendInfo, Result};

macro_rules! forward {
    ($($name:ident $parameters:tt $arguments:tt -> $result:ty;)*) => {
        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Arc<B> {
            fn info(&self) -> &BackendInfo {
                (**self).info()
            }
            $(method! { $name $parameters -> $result })*
        }

        #[deny(clippy::missing_trait_methods)]
        impl<B: StorageBackend + ?Sized> StorageBackend for Box<B> {
            fn info(&self) -> &BackendInfo {
                (**self).info()
            }
            $(method! { $name $parameters -> $result })*
        }
    };
}

/// A method as `async_trait` declares it, with a lifetime for each reference.
macro_rules! method {
    ($name:ident [$a:ident: &$a_type:ty, $b:ident: &$b_type:ty $(, $arg:ident: $type:ty)*] -> $result:ty) => {
        method! { @ $name<'b, 'c>($a: &'b $a_type, $b: &'c $b_type $(, $arg: $type)*) -> $result }
    };
    ($name:ident [$a:ident: &$a_type:ty $(, $arg:ident: $type:ty)*] -> $result:ty) => {
        method! { @ $name<'b>($a: &'b $a_type $(, $arg: $type)*) -> $result }
    };
    ($name:ident [$($arg:ident: $type:ty),*] -> $result:ty) => {
        method! { @ $name<>($($arg: $type),*) -> $result }
    };
    (@ $name:ident<$($life:lifetime),*>($($arg:ident: $type:ty),*) -> $result:ty) => {
        fn $name<'a, $($life,)* 'async_trait>(&'a self, $($arg: $type),*) -> BoxFuture<'async_trait, $result>
        where
            'a: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            (**self).$name($($arg),*)
        }
    };
}

crate::each_method!(forward);

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
