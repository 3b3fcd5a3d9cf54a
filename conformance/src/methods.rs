//! The methods of the trait, written once for all wrappers of this crate.

/// Expands `$then! { name [parameters] [arguments] -> result; … }` with every method of `StorageBackend` but `info`.
///
/// A method that the trait gains later must be added here: each implementation made from this list is under
/// `deny(clippy::missing_trait_methods)`.
macro_rules! each_method {
    ($then:ident) => {
        $then! {
            get [key: &Key, options: GetOptions] [key, options] -> Result<Option<Object>>;
            put [key: &Key, body: Body, options: PutOptions] [key, body, options] -> Result<Entry>;
            delete [key: &Key, options: DeleteOptions] [key, options] -> Result<()>;
            stat [key: &Key, options: StatOptions] [key, options] -> Result<Option<Entry>>;
            list [options: ListOptions] [options] -> Result<ListStream>;
            get_batch [items: Vec<(Key, GetOptions)>] [items] -> Result<Vec<Result<Option<Object>>>>;
            put_batch [items: Vec<(Key, Body, PutOptions)>, options: BatchOptions] [items, options]
                -> Result<Vec<Result<Entry>>>;
            delete_batch [items: Vec<(Key, DeleteOptions)>, options: BatchOptions] [items, options]
                -> Result<Vec<Result<()>>>;
            query [query: Query] [query] -> Result<EntryStream>;
            clear [prefix: &str] [prefix] -> Result<()>;
            copy [from: &Key, to: &Key, options: CopyOptions] [from, to, options] -> Result<Entry>;
            rename [from: &Key, to: &Key, options: RenameOptions] [from, to, options] -> Result<Entry>;
            versions [key: &Key] [key] -> Result<EntryStream>;
            begin [] [] -> Result<Arc<dyn Transaction>>;
            health [] [] -> Result<()>;
            disconnect [] [] -> Result<()>;
        }
    };
}
pub(crate) use each_method;
