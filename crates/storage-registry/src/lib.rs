//! Opens a storage backend from a URI or a configuration.
