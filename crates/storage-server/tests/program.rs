//! The program itself: what it prints, how it ends, and clients that are not ours: curl and Python.
#![allow(clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "support/program.rs"]
mod program;

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use program::{Program, command};

fn refused(command: &mut Command) -> (i32, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8_lossy(&stderr).into_owned())
}

#[test]
fn it_says_what_it_can_and_what_it_does() {
    let help = command(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for word in [
        "--listen",
        "--tokens",
        "--allow-clear",
        "--tls-cert",
        "--uploads",
        "STORAGE_SERVER_LISTEN",
        "STORAGE_URI",
        "Exit codes",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let openapi = command(&["--openapi"]).output().unwrap();
    let openapi: serde_json::Value = serde_json::from_slice(&openapi.stdout).unwrap();
    assert_eq!(openapi["openapi"], "3.1.0");
    for path in [
        "/files/{key}",
        "/files",
        "/v1",
        "/v1/objects/{key}",
        "/v1/list",
        "/v1/writes/{id}",
        "/v1/uploads/{id}",
        "/health",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    let program = Program::start(&mut command(&["memory:", "--listen", "127.0.0.1:0"]));
    assert!(program.said.contains("without tokens"), "{}", program.said);
    assert_eq!(program.ask("GET", "/health", "").0, 200);
    assert_eq!(program.ask("PUT", "/files/k", "v").0, 200);
    assert_eq!(program.ask("DELETE", "/files", "").0, 403);
    let metrics = program.ask("GET", "/metrics", "").1;
    assert!(
        metrics.contains("storage_server_requests_total{") && metrics.contains("route=\"/files/{key}\""),
        "{metrics}"
    );
    assert!(metrics.contains("storage_server_request_seconds_bucket"), "{metrics}");
}

#[test]
fn settings_come_from_flags_over_the_environment_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    fs::write(&file, "listen = \"127.0.0.1:1\"\nallow_clear = true\nmax_value = 3\nlease = 1.5\n").unwrap();
    let config = file.to_str().unwrap();
    let mut from_env = command(&["--config", config]);
    from_env.env("STORAGE_URI", format!("fs:{}", dir.path().join("store").display()));
    let program = Program::start(from_env.env("STORAGE_SERVER_LISTEN", "127.0.0.1:0"));
    assert_eq!(program.ask("PUT", "/files/k", "1234").0, 413);
    assert_eq!(program.ask("PUT", "/files/k", "123").0, 200);
    assert_eq!(program.ask("DELETE", "/files", "").0, 204);
    drop(program);
    let program = Program::start(
        command(&["memory:", "--config", config, "--listen", "127.0.0.1:0"])
            .env("STORAGE_SERVER_LISTEN", "127.0.0.1:1"),
    );
    let (status, keys) = program.ask("GET", "/files", "");
    assert!(status == 200 && keys.contains("{\"keys\":[]}"), "{status}: {keys}");
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file.toml");
    for (text, arguments, code, hint) in [
        ("unknown = 1", &["memory:", "--config"][..], 2, "unknown"),
        ("lease = -1", &["memory:", "--config"], 2, "seconds"),
        ("tls_cert = 'a'", &["memory:", "--config"], 2, "`tls_key`"),
        ("[[token]]\nname = 'a'", &["memory:", "--tokens"], 2, "line 1"),
        ("", &["memory:", "--listen", "0.0.0.0:0", "--config"], 2, "`tokens`"),
        ("", &["nonsense:", "--config"], 2, "scheme"),
        ("", &["sqlite:/nowhere/at/all.db", "--config"], 1, "sqlite"),
    ] {
        fs::write(&file, text).unwrap();
        let mut arguments = arguments.to_vec();
        arguments.push(file.to_str().unwrap());
        let (status, said) = refused(&mut command(&arguments));
        assert!(said.contains(hint), "{text} {arguments:?}: {said}");
        assert!(status == code || status == 2, "{text} {arguments:?}: {status}, {said}");
    }
}

#[test]
fn sigterm_ends_it_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("fs:{}", dir.path().display());
    let mut program = Program::start(&mut command(&[&uri, "--listen", "127.0.0.1:0"]));
    let mut stream = TcpStream::connect(&program.address).unwrap();
    write!(stream, "PUT /files/k HTTP/1.1\r\nhost: {}\r\ncontent-length: 4\r\n\r\nha", program.address).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    program.signal("-TERM");
    std::thread::sleep(Duration::from_millis(100));
    stream.write_all(b"lf").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(program.child.wait().unwrap().success());
    let program = Program::start(&mut command(&[&uri, "--listen", "127.0.0.1:0"]));
    assert_eq!(program.ask("GET", "/files/k", ""), (200, "half".into()));
}

/// Rounds of writes that end by kill -9: what was acknowledged is there afterwards. `STORAGE_SERVER_KILLS` says how many rounds.
#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let rounds = env::var("STORAGE_SERVER_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let dir = tempfile::tempdir().unwrap();
    for store in ["fs:", "sqlite:"] {
        let place = dir.path().join(store.trim_end_matches(':'));
        let uri = format!("{store}{}", place.display());
        let mut acknowledged: Vec<(String, String)> = Vec::new();
        for round in 0..rounds {
            let program = Program::start(&mut command(&[&uri, "--listen", "127.0.0.1:0"]));
            for (key, value) in acknowledged.iter().rev().take(50) {
                assert_eq!(program.ask("GET", &format!("/files/{key}"), ""), (200, value.clone()), "{store} {key}");
            }
            let begun = Instant::now();
            let until = Duration::from_millis(40 + 17 * (round % 9));
            let killer = {
                let pid = program.child.id().to_string();
                std::thread::spawn(move || {
                    std::thread::sleep(until);
                    Command::new("kill").args(["-9", &pid]).status().unwrap();
                })
            };
            for n in 0.. {
                let (key, value) = (format!("{round}-{n}"), format!("value {round} {n} {}", "x".repeat(n * 37 % 5000)));
                let Ok(mut stream) = TcpStream::connect(&program.address) else { break };
                let head = format!("PUT /files/{key} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", program.address);
                let sent = write!(stream, "{head}content-length: {}\r\n\r\n{value}", value.len());
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                if sent.is_err() || !answer.starts_with("HTTP/1.1 200") {
                    break;
                }
                acknowledged.push((key, value));
            }
            killer.join().unwrap();
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        assert!(acknowledged.len() > rounds as usize, "{store}: {} writes", acknowledged.len());
    }
}

/// An upload of 24 MiB, while the server is killed again and again: it goes on where it was, and the value is whole in the end.
#[test]
fn a_resumable_upload_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (store, uploads) = (format!("fs:{}", dir.path().join("store").display()), dir.path().join("uploads"));
    let uploads = format!("fs:{}", uploads.display());
    let start = || Program::start(&mut command(&[&store, "--uploads", &uploads, "--listen", "127.0.0.1:0"]));
    let ask = |program: &Program, head: &str, body: &[u8]| {
        let mut stream = TcpStream::connect(&program.address).ok()?;
        let head = format!("{head}host: {}\r\nconnection: close\r\n", program.address);
        // The server may be gone before all of it.
        let _ = write!(stream, "{head}content-length: {}\r\n\r\n", body.len()).and_then(|()| stream.write_all(body));
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 ").then_some(answer)
    };
    let header = |answer: &str, name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name}: {answer}"))
    };
    let value: Vec<u8> = (0..24_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let program = start();
    let begun = ask(&program, "PUT /files/k HTTP/1.1\r\nupload-complete: ?0\r\n", b"").unwrap();
    let location = header(&begun, "location");
    let id = location.rsplit('/').next().unwrap();
    drop(program);
    let (mut kills, mut offset, mut interrupted) = (0, 0, 0);
    let memory = loop {
        let program = start();
        let found = ask(&program, &format!("HEAD /v1/uploads/{id} HTTP/1.1\r\n"), b"").unwrap();
        let at: usize = header(&found, "upload-offset").parse().unwrap();
        assert!(at >= offset, "{at} after {offset}");
        offset = at;
        let killer = (kills < 8).then(|| {
            let (pid, wait) = (program.child.id().to_string(), Duration::from_millis(3 + 7 * kills));
            std::thread::spawn(move || {
                std::thread::sleep(wait);
                Command::new("kill").args(["-9", &pid]).status().unwrap();
            })
        });
        // One part and a half, or the rest.
        let end = if kills < 8 { value.len().min(offset + (12 << 20)) } else { value.len() };
        let complete = if end == value.len() && kills == 8 { "?1" } else { "?0" };
        let head = format!(
            "PATCH /v1/uploads/{id} HTTP/1.1\r\ncontent-type: application/partial-upload\r\nupload-offset: {offset}\r\n\
             upload-complete: {complete}\r\n"
        );
        let answer = ask(&program, &head, &value[offset..end]);
        interrupted += u32::from(answer.is_none());
        if let Some(answer) = answer.filter(|answer| answer.starts_with("HTTP/1.1 204")) {
            // It was acknowledged, so it is there after the kill.
            offset = header(&answer, "upload-offset").parse().unwrap();
        } else if kills == 8 {
            let status = fs::read_to_string(format!("/proc/{}/status", program.child.id())).unwrap_or_default();
            assert_eq!(program.ask("GET", "/files", "").1.matches("\"k\"").count(), 1);
            break status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
        }
        if let Some(killer) = killer {
            killer.join().unwrap();
        }
        kills += 1;
        assert!(kills <= 9);
    };
    assert!(interrupted > 0, "no kill came in the midst of a request");
    let program = start();
    let mut stream = TcpStream::connect(&program.address).unwrap();
    write!(stream, "GET /files/k HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", program.address).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&value) && answer.len() < value.len() + 2000, "{} bytes", answer.len());
    let kib = memory.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    assert!(kib.is_none_or(|kib| kib < 64 << 10), "{kib:?} KiB of memory");
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out} {err}");
    Some(out.into_owned())
}

#[test]
fn curl_does_all_six_routes() {
    let program = Program::start(&mut command(&["memory:", "--listen", "127.0.0.1:0", "--allow-clear"]));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("today.md");
    fs::write(&file, "water the plants").unwrap();
    let (key, all) = (program.url("/files/notes%2Ftoday.md"), program.url("/files"));
    let curl = |arguments: &[&str]| run("curl", &[&["-sS", "--fail", "--noproxy", "*"], arguments].concat());
    let Some(put) = curl(&["-T", file.to_str().unwrap(), &key]) else {
        assert!(env::var_os("STORAGE_TEST_REQUIRE").is_none(), "curl is not installed");
        return;
    };
    assert!(put.contains("\"size\":16"), "{put}");
    assert_eq!(curl(&[&key]).unwrap(), "water the plants");
    assert_eq!(curl(&["-r", "0-4", &key]).unwrap(), "water");
    assert!(curl(&["-I", &key]).unwrap().to_lowercase().contains("content-length: 16"));
    assert_eq!(curl(&[&all]).unwrap(), "{\"keys\":[\"notes/today.md\"]}");
    curl(&["-X", "DELETE", &key]).unwrap();
    curl(&["-T", file.to_str().unwrap(), &key]).unwrap();
    curl(&["-X", "DELETE", &all]).unwrap();
    assert_eq!(curl(&[&all]).unwrap(), "{\"keys\":[]}");
}

#[test]
fn python_does_all_six_routes() {
    let program = Program::start(&mut command(&["memory:", "--listen", "127.0.0.1:0", "--allow-clear"]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/client.py");
    let python = env::var("STORAGE_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let said = run(&python, &[script.to_str().unwrap(), &program.url("")]);
    assert!(said.is_some() || env::var_os("STORAGE_TEST_REQUIRE").is_none(), "{python} is not installed");
    assert!(said.is_none_or(|said| said.trim() == "all six"));
}
