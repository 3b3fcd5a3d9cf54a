//! An independent implementation, `decode.py`, reads what this one writes and the other way round. It runs where there is
//! a Python with the package `cryptography`: that of `STORAGE_TEST_PYTHON`, which then must work, or else `python3`.
//!
//! Without, the tests are not run, and are reported as such.

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use storage_config::DataKey;
use storage_core::{GetOptions, Metadata, PutOptions, Storage};
use storage_layer_encrypt::{Algorithm, EncryptLayer, StaticKeys};
use storage_memory::Memory;

const KEK: [u8; 32] = [0x5a; 32];
const SIZES: [usize; 8] = [0, 1, 1000, 65_535, 65_536, 65_537, 131_072, 200_000];

fn main() -> ExitCode {
    let python = python();
    let test = |name: &str, run: fn(&str) -> Result<(), Failed>| {
        let given = python.clone();
        Trial::test(name, move || run(&given.unwrap_or_default())).with_ignored_flag(python.is_none())
    };
    let tests =
        vec![test("vectors", vectors), test("decodes_ours", decodes_ours), test("is_decoded_by_us", is_decoded_by_us)];
    if python.is_none() {
        eprintln!("not run: no python3 with the package `cryptography` here; STORAGE_TEST_PYTHON can name one");
    }
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// The interpreter that was named, or the system's if it has the package or everything must run.
fn python() -> Option<String> {
    let set = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
    let required = set("STORAGE_TEST_REQUIRE").map(|_| "python3".to_owned());
    set("STORAGE_TEST_PYTHON").or(required).or_else(|| {
        let mut probe = Command::new("python3");
        probe.args(["-c", "import cryptography"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().ok().filter(|status| status.success()).map(|_| "python3".to_owned())
    })
}

fn script(python: &str, arguments: &[&str], input: &str) -> Result<String, Failed> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut child = Command::new(python)
        .arg(directory.join("decode.py"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{python} does not start: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("decode.py {arguments:?} failed: {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn vectors(python: &str) -> Result<(), Failed> {
    let checked = script(python, &["check", "vectors.json"], "")?;
    if checked.trim() == "20 values and 1 records" { Ok(()) } else { Err(checked.into()) }
}

struct Case {
    algorithm: Algorithm,
    sealed: bool,
    size: usize,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        let algorithms = [Algorithm::Aes256Gcm, Algorithm::ChaCha20Poly1305];
        algorithms.into_iter().flat_map(|algorithm| {
            [false, true].into_iter().flat_map(move |sealed| SIZES.map(|size| Case { algorithm, sealed, size }))
        })
    }

    fn key(&self) -> String {
        format!("{:?}/{}/{} ü", self.algorithm, self.sealed, self.size)
    }

    fn plain(&self) -> Vec<u8> {
        (0..self.size).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    fn metadata(&self) -> Metadata {
        match self.size % 2 {
            0 => Metadata::new(),
            _ => Metadata::new().content_type("text/plain").field("x", 1.0).field("n", self.size as i64).tag("ü"),
        }
    }

    fn above(&self, below: &Storage) -> Result<Storage, Failed> {
        let keys = StaticKeys::new("kek", &DataKey::new(KEK))?;
        let layer = EncryptLayer::new(keys).algorithm(self.algorithm).encrypt_metadata(self.sealed);
        Ok(below.clone().layer(layer))
    }
}

fn now<T>(future: impl Future<Output = T>) -> Result<T, Failed> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(future))
}

fn decodes_ours(python: &str) -> Result<(), Failed> {
    let below = Storage::new(Memory::new());
    let mut input = Vec::new();
    for case in Case::all() {
        let (key, options) = (case.key(), PutOptions::new().metadata(case.metadata()));
        now(case.above(&below)?.put_with(&key, case.plain(), options))??;
        let stored = now(below.open(&key, GetOptions::new()))??.ok_or("nothing was stored")?;
        let metadata = stored.entry.metadata.unwrap_or_default().to_json();
        let stored = HEXLOWER.encode(&now(stored.body.bytes(u64::MAX))??);
        input.push(json!({"kek_id": "kek", "kek": HEXLOWER.encode(&KEK), "key": key, "stored": stored, "stored_metadata": metadata}));
    }
    let output: Vec<Value> = serde_json::from_str(&script(python, &["decode"], &json!(input).to_string())?)?;
    for (case, seen) in Case::all().zip(&output) {
        let expected = json!({"plain": HEXLOWER.encode(&case.plain()), "metadata": case.metadata().to_json()});
        if *seen != expected {
            return Err(format!("{}: another value or metadata", case.key()).into());
        }
    }
    if output.len() == Case::all().count() { Ok(()) } else { Err("not all were decoded".into()) }
}

fn is_decoded_by_us(python: &str) -> Result<(), Failed> {
    let code = |algorithm| if algorithm == Algorithm::Aes256Gcm { 1 } else { 2 };
    let input: Vec<Value> = Case::all()
        .map(|case| {
            json!({
                "kek_id": "kek", "kek": HEXLOWER.encode(&KEK), "algorithm": code(case.algorithm), "sealed": case.sealed,
                "key": case.key(), "metadata": case.metadata().to_json(), "plain": HEXLOWER.encode(&case.plain()),
            })
        })
        .collect();
    let output: Vec<Value> = serde_json::from_str(&script(python, &["encode"], &json!(input).to_string())?)?;
    let below = Storage::new(Memory::new());
    let mut read = 0;
    for (case, encoded) in Case::all().zip(&output) {
        let text = |name: &str| encoded[name].as_str().ok_or("decode.py left something out");
        let stored = HEXLOWER.decode(text("stored")?.as_bytes())?;
        let metadata = Metadata::from_json(text("stored_metadata")?)?;
        now(below.put_with(case.key(), stored, PutOptions::new().metadata(metadata)))??;
        let object = now(case.above(&below)?.open(case.key(), GetOptions::new()))??.ok_or("nothing was read")?;
        let metadata = object.entry.metadata.clone();
        let plain = now(object.body.bytes(u64::MAX))??;
        if plain != case.plain() || metadata != Some(Arc::new(case.metadata())) {
            return Err(format!("{}: another value or metadata", case.key()).into());
        }
        read += 1;
    }
    if read == Case::all().count() { Ok(()) } else { Err("not all were encoded".into()) }
}
