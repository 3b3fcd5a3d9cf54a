//! For authors of middleware: write a layer over any storage backend without forgetting a method.
