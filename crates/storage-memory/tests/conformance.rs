//! The contract, check by check.

use storage_conformance::{Namespace, Target};
use storage_core::Capabilities;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("memory", |_: Namespace| async { Ok(Memory::new()) }).volatile().requires(
        Capabilities::new()
            .atomic()
            .conditional()
            .conditional_delete()
            .unique_etags()
            .transactions()
            .versioning()
            .queryable(),
    )
);
