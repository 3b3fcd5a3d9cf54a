//! The contract, check by check.

use storage_conformance::{Namespace, Target};
use storage_core::Capabilities;
use storage_memory::{Config, Memory};

const ALL: Capabilities = Capabilities::new()
    .atomic()
    .conditional()
    .conditional_delete()
    .version_etags()
    .transactions()
    .versioning()
    .queryable();

storage_conformance::main!(
    Target::new("memory", |_: Namespace| async { Ok(Memory::new()) }).volatile().requires(ALL),
    Target::new("memory-small", |_: Namespace| async {
        let mut config = Config::default();
        config.max_value = Some(1 << 20);
        Ok(Memory::with_config(config))
    })
    .volatile()
    .requires(ALL),
);
