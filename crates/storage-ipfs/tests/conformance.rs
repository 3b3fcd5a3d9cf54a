//! The conformance suite on a real node: with an index in a file, with one in memory, and with one on a server, whose connections the
//! suite breaks. What happens when those to the node break is tested in `network.rs`.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::time::Duration;

use storage_conformance::Target;
use storage_core::Capabilities;

const ALL: Capabilities = Capabilities::new()
    .atomic()
    .streaming()
    .conditional()
    .conditional_delete()
    .version_etags()
    .transactions()
    .sources()
    .queryable();

fn on_node(target: Target) -> Target {
    target.needs_env(support::VARIABLE).runs_on("server").requires(ALL).patience(Duration::from_secs(120)).group("ipfs")
}

storage_conformance::main!(
    on_node(Target::new("ipfs", support::open)).damage(support::damage),
    on_node(Target::new("ipfs-memory", support::open_in_memory)).one_process(),
    on_node(Target::new("ipfs-postgres", support::open_on_server))
        .needs_env(support::variable_of_two())
        .secret(support::password())
        .cleanup(support::removal()),
);
