//! The conformance suite on a real file.

use storage_conformance::{Namespace, Target};
use storage_core::Capabilities;
use storage_sql::{Config, Sql};

storage_conformance::main!(
    Target::new("sqlite", |ns: Namespace| async move { Sql::connect(Config::sqlite(ns.dir().join("test.db"))).await })
        .requires(
            Capabilities::new()
                .atomic()
                .streaming()
                .conditional()
                .conditional_delete()
                .unique_etags()
                .transactions()
                .queryable()
        )
);
