//! The suite on the in-memory backend, which declares everything that can be refused.

use storage_conformance::{Namespace, Target};
use storage_core::Capabilities;
use storage_memory::Memory;

storage_conformance::main!(
    Target::new("memory", |_: Namespace| async { Ok(Memory::new()) })
        .requires(
            Capabilities::new().atomic().conditional().conditional_delete().unique_etags().transactions().versioning()
        )
        .volatile(),
);
