//! The methods of the trait, listed once for everything that forwards them.

/// Expands `$then! { name [parameters] [arguments] -> result; … }` with every method of
/// [`StorageBackend`](crate::StorageBackend) but `info`, in its order.
///
/// A new method of the trait is added here and nowhere else. Types are named by their full path, so the caller needs no
/// imports for them.
///
/// # For authors of layers
/// A layer that forwards with this macro forwards the methods of the version of this crate that it is *built* against. One that
/// lists the methods by hand gets the trait's default for a method that came later, and the default usually answers
/// `Unsupported`. Such a layer must not promise what it does not forward: intersect the capabilities of the backend below with those
/// that the layer knows, by [`Capabilities::and`](crate::Capabilities::and). `#[deny(clippy::missing_trait_methods)]` on
/// the implementation turns a method that is missing into an error.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use storage_core::{BackendInfo, StorageBackend, async_trait};
///
/// /// Counts calls.
/// #[derive(Debug)]
/// struct Counted<S: ?Sized> {
///     calls: AtomicU64,
///     inner: Arc<S>,
/// }
///
/// macro_rules! count {
///     ($($name:ident [$($parameter:tt)*] [$($argument:ident),*] -> $result:ty;)*) => {
///         #[async_trait]
///         #[deny(clippy::missing_trait_methods)]
///         impl<S: StorageBackend + ?Sized> StorageBackend for Counted<S> {
///             fn info(&self) -> &BackendInfo {
///                 self.inner.info()
///             }
///             $(async fn $name(&self, $($parameter)*) -> $result {
///                 self.calls.fetch_add(1, Ordering::Relaxed);
///                 self.inner.$name($($argument),*).await
///             })*
///         }
///     };
/// }
/// storage_core::each_method!(count);
/// ```
///
/// What one method needs differently gets a rule of its own in the caller's macro, by its name: `begin` must put the layer
/// around the transaction, too, or what happens there goes around the layer.
#[macro_export]
macro_rules! each_method {
    ($then:ident) => {
        $then! {
            get [key: &$crate::Key, options: $crate::GetOptions] [key, options]
                -> $crate::Result<::std::option::Option<$crate::Object>>;
            put [key: &$crate::Key, body: $crate::Body, options: $crate::PutOptions] [key, body, options]
                -> $crate::Result<$crate::Entry>;
            delete [key: &$crate::Key, options: $crate::DeleteOptions] [key, options] -> $crate::Result<()>;
            stat [key: &$crate::Key, options: $crate::StatOptions] [key, options]
                -> $crate::Result<::std::option::Option<$crate::Entry>>;
            list [options: $crate::ListOptions] [options] -> $crate::Result<$crate::ListStream>;
            get_batch [items: ::std::vec::Vec<($crate::Key, $crate::GetOptions)>] [items]
                -> $crate::Result<::std::vec::Vec<$crate::Result<::std::option::Option<$crate::Object>>>>;
            put_batch [
                items: ::std::vec::Vec<($crate::Key, $crate::Body, $crate::PutOptions)>, options: $crate::BatchOptions
            ] [items, options] -> $crate::Result<::std::vec::Vec<$crate::Result<$crate::Entry>>>;
            delete_batch [
                items: ::std::vec::Vec<($crate::Key, $crate::DeleteOptions)>, options: $crate::BatchOptions
            ] [items, options] -> $crate::Result<::std::vec::Vec<$crate::Result<()>>>;
            query [query: $crate::Query] [query] -> $crate::Result<$crate::EntryStream>;
            clear [prefix: &str] [prefix] -> $crate::Result<()>;
            copy [from: &$crate::Key, to: &$crate::Key, options: $crate::CopyOptions] [from, to, options]
                -> $crate::Result<$crate::Entry>;
            rename [from: &$crate::Key, to: &$crate::Key, options: $crate::RenameOptions] [from, to, options]
                -> $crate::Result<$crate::Entry>;
            versions [key: &$crate::Key] [key] -> $crate::Result<$crate::EntryStream>;
            presign [key: &$crate::Key, options: $crate::PresignOptions] [key, options]
                -> $crate::Result<$crate::PresignedRequest>;
            begin [] [] -> $crate::Result<::std::sync::Arc<dyn $crate::Transaction>>;
            health [] [] -> $crate::Result<()>;
            disconnect [] [] -> $crate::Result<()>;
        }
    };
}
