# SecantusDB
#
# label: third-party emulator
# needed: yes
# apt: python3-venv
# variable: STORAGE_TEST_SECANTUS
# address: mongodb://127.0.0.1:{port}
# port: 27117
# limits: speaks MongoDB's wire protocol, transactions and GridFS included; it is not MongoDB, which no registry has in a form
#   that installs here. A preview release. GPL-2: it runs as a process of its own, and nothing here is built from it.

pin=0.7.0b3
programs=$CACHE/secantus-$pin

install() {
    python3 -m venv "$programs"
    "$programs/bin/pip" install --quiet --disable-pip-version-check "SecantusDB==$pin"
}

version() {
    "$programs/bin/python" -c 'from importlib.metadata import version; print(version("SecantusDB"))'
}

start() {
    exec "$programs/bin/secantusd-py" --host 127.0.0.1 --port "$PORT" --storage-path "$DATA" --log-level WARNING
}

ready() {
    # The protocol's `hello`, and an answer that names the version.
    "$programs/bin/python" - "$PORT" <<'PY'
import socket, struct, sys
from bson import decode, encode
body = struct.pack("<ib", 0, 0) + encode({"hello": 1, "$db": "admin"})
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as connection:
    connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
    answer = connection.recv(65536)
sys.exit(decode(answer[21:])["ok"] != 1)
PY
}
