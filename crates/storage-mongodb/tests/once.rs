//! A delete of many keys takes effect once for each: what is created behind it stays.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "support/gate.rs"]
mod gate;

use gate::{Gate, Side};
use storage_core::{PutOptions, Storage};
use storage_mongodb::Mongo;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_behind_a_delete_of_many_stays() {
    if support::is_missing_server() {
        return;
    }
    for batch in [false, true] {
        // Behind each of its commands in turn, until it has no more.
        for command in 1.. {
            let collection = format!("once{:08x}", fastrand::u32(..));
            let gate = Gate::new(support::server());
            let connect = async |server: &str| {
                Storage::new(Mongo::connect(support::config(server, &collection).unwrap()).await.unwrap())
            };
            let (through, other) = (connect(&gate.address).await, connect(&support::server()).await);
            other.put("k", "old").await.unwrap();
            gate.stop_at(command, Side::Behind);
            let deleting = tokio::spawn(async move {
                match batch {
                    true => through.delete_batch(["k", "other"]).await.map(drop),
                    false => through.clear().await,
                }
            });
            let (stopped, gate) = tokio::task::spawn_blocking({
                let deleting = deleting.abort_handle();
                move || (gate.stops(|| !deleting.is_finished()), gate)
            })
            .await
            .unwrap();
            // Only where it has been deleted, which it is once.
            let created = other.put_with("k", "new", PutOptions::new().if_absent()).await.is_ok();
            gate.open();
            deleting.await.unwrap().unwrap();
            let there = other.get("k").await.unwrap();
            assert_eq!(there.is_some(), created, "batch: {batch}, command {command}");
            support::drop_all(&collection).await;
            if !stopped {
                assert!(command > 1, "no command was stopped at");
                break;
            }
        }
    }
}
