# A program on object_store 0.14.2 in a temporary folder, for scripts that source this. `run` takes its text from the standard input; the
# versions of the other crates are the newest that cargo finds. At the end of the script all is removed.

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() {
    mkdir "$work/src"
    cat >"$work/src/main.rs"
    cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "finding"
edition = "2024"

[dependencies]
async-trait = "0.1"
futures = "0.3"
http = "1"
object_store = { version = "=0.14.2", default-features = false, features = ["aws-base", "ring"] }
tokio = { version = "1", features = ["macros", "rt", "time"] }

[workspace]
TOML
    cargo run --quiet --manifest-path "$work/Cargo.toml" --target-dir "$work/target"
}

# expect SEEN EXPECTED
expect() {
    echo "$1"
    if [ "$1" != "$2" ]; then
        printf 'this is another behaviour than was found:\n%s\n' "$2" >&2
        exit 1
    fi
}
