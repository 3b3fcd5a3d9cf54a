# FerretDB
#
# label: third-party emulator
# needed: yes
# variable: STORAGE_TEST_FERRETDB
# address: mongodb://127.0.0.1:{port}
# port: 27217
# limits: speaks MongoDB's wire protocol over SQLite, without transactions. Updates of several clients at once lose each other, so
#   storage-mongodb refuses it; the refusal, and the use by a single client that its option `unsafe_server` allows, are all that is
#   tested on it. Needs Go to be built.

pin=1.24.2
program=$CACHE/ferretdb-$pin/ferretdb

install() {
    if ! command -v go >/dev/null 2>&1; then
        echo "FerretDB is built from its sources, and there is no \`go\` on the PATH; install Go 1.22 or newer" >&2
        return 1
    fi
    local work sources
    work=$(mktemp -d)
    # What `go mod download` says of a module names the directory of its sources.
    sources=$(cd "$work" && go mod download -json "github.com/FerretDB/FerretDB@v$pin" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
    cp -r "$sources" "$work/sources"
    chmod -R u+w "$work/sources"
    # Its build reads the version from a file that its makefile writes and that is no part of the module; without it, the program ends at once.
    echo "v$pin" >"$work/sources/build/version/version.txt"
    mkdir -p "$(dirname "$program")"
    # Without optimisation, for half the time: it is tried for seconds.
    (cd "$work/sources" && go build -mod=mod -gcflags 'all=-N -l' -ldflags '-s -w' -o "$program.new" ./cmd/ferretdb)
    mv "$program.new" "$program"
    chmod -R u+w "$work"
    rm -rf "$work"
}

version() {
    [ -x "$program" ] && "$program" --version | sed -n 's/^version: v//p'
}

start() {
    mkdir -p "$DATA/values" "$DATA/state"
    exec env DO_NOT_TRACK=1 "$program" --handler=sqlite --sqlite-url="file:$DATA/values/" --listen-addr="127.0.0.1:$PORT" \
        --debug-addr=- --state-dir="$DATA/state" --telemetry=disable --log-level=warn
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
}
