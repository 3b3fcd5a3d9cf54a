//! Schemathesis against the description of the routes: no answer is a failure of the server, and each is as described.
//!
//! It is a program of Python's, which is found by `STORAGE_TEST_SCHEMATHESIS` or in the path: `pip install schemathesis==4.32.5`.
//! `STORAGE_TEST_SCHEMATHESIS_EXAMPLES` says how many cases of each route it makes, `STORAGE_TEST_SCHEMATHESIS_SEED` which.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{env, process::Command};

use storage_core::Storage;
use storage_memory::Memory;
use storage_server::Config;
use support::start_uploads;

/// What Schemathesis is to look at. That a body of frames is written as described it cannot know.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      response_headers_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_described() {
    let program = env::var("STORAGE_TEST_SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".into());
    if Command::new(&program).arg("--version").output().is_err() {
        assert!(env::var_os("STORAGE_TEST_REQUIRE").is_none(), "Schemathesis is not installed");
        eprintln!("not run: Schemathesis is not installed");
        return;
    }
    let mut config = Config::default();
    config.allow_clear = true;
    let server = start_uploads(Storage::new(Memory::new()), Storage::new(Memory::new()), config, 0).await;
    let examples = env::var("STORAGE_TEST_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "20".into());
    let mut command = Command::new(program);
    command.args(["run", &server.url("/openapi.json"), "--no-color", "--checks", CHECKS, "--max-examples", &examples]);
    // Nor can it write bodies of these types.
    command.args(["--exclude-path", "/v1/batch/put", "--exclude-operation-id", "append"]);
    if let Ok(seed) = env::var("STORAGE_TEST_SCHEMATHESIS_SEED") {
        command.args(["--seed", &seed]);
    }
    // It leaves what it has seen where it runs.
    let place = tempfile::tempdir().unwrap();
    command.current_dir(place.path());
    // Also where others use the machine.
    command.args(["--request-timeout", "60"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    // It counts what it has tried.
    let counted = said.lines().find(|line| line.contains(" generated, "));
    println!("{}", counted.unwrap_or_else(|| panic!("{said}")).trim());
}
