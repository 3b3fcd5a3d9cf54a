# Kubo
#
# label: server
# needed: yes
# variable: STORAGE_TEST_KUBO
# address: http://127.0.0.1:{port}
# port: 25401
# ports: 2
# limits: a node that talks to no other (offline, no bootstrap, no listening address), so that what it does not have it never gets. Its
#   go-libp2p is the release that has what the fork has which Kubo's own go.mod names. Its gateway has the port behind that of its
#   RPC API. Needs Go to be built.

pin=0.43.1
libp2p=0.50.0
program=$CACHE/kubo-$pin/ipfs
export IPFS_PATH=$DATA/repo IPFS_TELEMETRY=off

install() {
    if ! command -v go >/dev/null 2>&1; then
        echo "Kubo is built from its sources, and there is no \`go\` on the PATH; install Go 1.26 or newer" >&2
        return 1
    fi
    local work
    work=$(mktemp -d)
    cd "$work"
    # `go install` of the program itself is refused, because its go.mod replaces go-libp2p by a fork. A module of our own ignores that line.
    go mod init kubobuild 2>"$work/log"
    local got=
    for _ in 1 2 3; do
        if go get "github.com/ipfs/kubo/cmd/ipfs@v$pin" "github.com/libp2p/go-libp2p@v$libp2p" >"$work/log" 2>&1; then
            got=yes
            break
        fi
    done
    if [ -z "$got" ]; then
        tail -20 "$work/log" >&2
        return 1
    fi
    mkdir -p "$(dirname "$program")"
    go build -ldflags '-s -w' -o "$program.new" github.com/ipfs/kubo/cmd/ipfs
    mv "$program.new" "$program"
    cd /
    rm -rf "$work"
}

version() {
    [ -x "$program" ] && "$program" version --number
}

prepare() {
    "$program" init --profile test,autoconf-off,announce-off --empty-repo
    "$program" config --json Routing.Type '"none"'
    "$program" config --json Gateway.NoFetch true
    "$program" config --json Gateway.DeserializedResponses true
    "$program" config --json Swarm.RelayClient.Enabled false
    "$program" config --json Swarm.RelayService.Enabled false
    "$program" config --json Swarm.Transports.Network.Websocket false
    "$program" config --json Version.SwarmCheckEnabled false
    "$program" config --json Plugins.Plugins '{"telemetry": {"Disabled": true}, "nopfs": {"Disabled": true}}'
}

start() {
    "$program" config --json Addresses \
        "{\"API\": \"/ip4/127.0.0.1/tcp/$PORT\", \"Gateway\": \"/ip4/127.0.0.1/tcp/$((PORT + 1))\", \"Swarm\": []}"
    exec "$program" daemon --offline --enable-gc=false
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'POST /api/v0/version HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 200 '
}
