//! What is in `deploy` for operators: the unit for systemd and the image are tried as far as that goes without either of the two.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/program.rs"]
mod program;

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use program::{Program, command};

const TOKENS: &str = "[[token]]\nname = 'a'\nsecret = '0123456789abcdef'\nscopes = ['read', 'write']\n";
const BEARER: &str = "authorization: Bearer 0123456789abcdef\r\n";

fn deploy(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)).unwrap()
}

/// Starts the program by this command line, in this environment and no other, does a round of requests, and ends it by `SIGTERM`.
fn is_served(line: &str, environment: &[(String, String)], ends_within: Duration) {
    let arguments: Vec<_> = line.split_whitespace().skip(1).collect();
    let mut command = command(&arguments);
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    let mut program = Program::start(&mut command);
    program.address = program.address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(program.ask("GET", "/health", "").0, 200);
    assert_eq!(program.ask("GET", "/files", "").0, 401);
    assert_eq!(program.ask_with("PUT", "/files/k", BEARER, "value").0, 200);
    assert_eq!(program.ask_with("GET", "/files/k", BEARER, "").1, "value");
    let begun = Instant::now();
    program.signal("-TERM");
    assert!(program.child.wait().unwrap().success());
    assert!(begun.elapsed() < ends_within, "{:?}", begun.elapsed());
}

/// What stands behind `name=` in a unit.
fn settings<'u>(unit: &'u str, name: &str) -> Vec<&'u str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn the_command_line_and_the_environment_of_the_unit_serve() {
    let unit = deploy("storage-server.service");
    let (state, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state_name = settings(&unit, "StateDirectory")[0];
    // What systemd does with `LoadCredential`: a copy under the name before the colon.
    let (name, _) = settings(&unit, "LoadCredential")[0].split_once(':').unwrap();
    fs::write(credentials.path().join(name), TOKENS).unwrap();
    let environment = settings(&unit, "Environment").into_iter().map(|setting| {
        let (name, value) = setting.split_once('=').unwrap();
        let value = value.replace("%d", credentials.path().to_str().unwrap());
        // Another place, and a port of its own.
        let value = value.replace(&format!("/var/lib/{state_name}"), state.path().to_str().unwrap());
        (name.to_owned(), value.replace(":8080", ":0"))
    });
    let environment: Vec<_> = environment.collect();
    assert_eq!(environment.len(), 3);
    let seconds = settings(&unit, "TimeoutStopSec")[0].parse().unwrap();
    is_served(settings(&unit, "ExecStart")[0], &environment, Duration::from_secs(seconds));
    assert!(fs::read_dir(state.path()).unwrap().next().is_some(), "the value is in the directory of the state");
}

#[test]
fn systemd_understands_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("storage-server.service");
    let unit = deploy("storage-server.service");
    let program = settings(&unit, "ExecStart")[0];
    fs::write(&path, unit.replace(program, env!("CARGO_BIN_EXE_storage-server"))).unwrap();
    let Ok(said) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        eprintln!("not run: systemd-analyze is not installed");
        return;
    };
    let err = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && !err.contains("storage-server.service"), "{err}");
}

#[test]
fn the_command_line_and_the_environment_of_the_image_serve() {
    let image = deploy("Dockerfile");
    let (data, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = dir.path().join("tokens.toml");
    fs::write(&tokens, TOKENS).unwrap();
    let variables = image.lines().filter_map(|line| line.strip_prefix("ENV ")).flat_map(str::split_whitespace);
    let environment = variables.map(|variable| {
        let (name, value) = variable.split_once('=').unwrap();
        let value = match value {
            "fs:/data" => format!("fs:{}", data.path().display()),
            "/etc/storage-server/tokens.toml" => tokens.display().to_string(),
            other => other.replace(":8080", ":0"),
        };
        (name.to_owned(), value)
    });
    let environment: Vec<_> = environment.collect();
    let entry = image.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    assert_eq!((environment.len(), entry), (3, "[\"storage-server\"]"));
    // Docker waits for ten seconds before it kills.
    is_served("storage-server", &environment, Duration::from_secs(10));
    assert!(image.contains("STOPSIGNAL SIGTERM") && fs::read_dir(data.path()).unwrap().next().is_some());
}
