//! Storage backend over any object_store::ObjectStore.
