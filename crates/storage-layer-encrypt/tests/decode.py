"""An independent implementation of the format in docs/encryption.md, written from that page with the package `cryptography`.

    decode.py check FILE    checks every test vector in FILE, by decoding and by encoding
    decode.py make          prints the test vectors
    decode.py decode        decodes the stored values in standard input
    decode.py encode        encodes the plain values in standard input

Input and output of the last two are lists of objects in JSON; bytes are in hexadecimal.
"""

import base64
import hashlib
import json
import os
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

MAGIC = b"STE\x01"
RECORD = b"STK\x01"
HEADER = 256
CHUNK = 1 << 16
TAG = 16
CIPHERS = {1: AESGCM, 2: ChaCha20Poly1305}
FIELD = "storage.sealed"
METADATA_NONCE = b"\x01" + bytes(11)


def expect(holds, what):
    if not holds:
        raise ValueError(what)


def kind(algorithm, sealed):
    return MAGIC + bytes([algorithm, 16, 1 if sealed else 0])


def context(algorithm, sealed, metadata, key):
    digest = bytes(32) if sealed else hashlib.sha256(metadata.encode()).digest()
    return kind(algorithm, sealed) + digest + key.encode()


def wrap(kek_id, kek, nonce, data_key, bound):
    return nonce + AESGCM(kek).encrypt(nonce, data_key, bytes([len(kek_id)]) + kek_id.encode() + bound)


def unwrap(kek_id, kek, wrapped, bound):
    return AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], bytes([len(kek_id)]) + kek_id.encode() + bound)


def nonce(index, last):
    return bytes(7) + index.to_bytes(4, "big") + bytes([1 if last else 0])


def seal_metadata(cipher, algorithm, kek_id, wrapped, metadata):
    head = bytes([algorithm, len(kek_id), len(wrapped)]) + kek_id.encode() + wrapped
    blob = head + cipher.encrypt(METADATA_NONCE, metadata.encode(), b"")
    text = base64.urlsafe_b64encode(blob).rstrip(b"=").decode()
    return json.dumps({"fields": {FIELD: text}}, separators=(",", ":"))


def encode(v, data_key, wrap_nonce):
    """The stored bytes and the stored metadata."""
    algorithm, sealed, kek_id, plain = v["algorithm"], v["sealed"], v["kek_id"], bytes.fromhex(v["plain"])
    bound = context(algorithm, sealed, v["metadata"], v["key"])
    wrapped = wrap(kek_id, bytes.fromhex(v["kek"]), wrap_nonce, data_key, bound)
    cipher = CIPHERS[algorithm](data_key)
    header = kind(algorithm, sealed) + bytes([len(kek_id)]) + len(wrapped).to_bytes(2, "big")
    stored = bytearray((header + kek_id.encode() + wrapped).ljust(HEADER, b"\0"))
    chunks = [plain[at : at + CHUNK] for at in range(0, len(plain), CHUNK)] or [b""]
    for index, chunk in enumerate(chunks):
        stored += cipher.encrypt(nonce(index, index + 1 == len(chunks)), chunk, b"")
    metadata = v["metadata"]
    if sealed:
        metadata = seal_metadata(cipher, algorithm, kek_id, wrapped, metadata)
    return bytes(stored), metadata


def decode(v):
    """The plain bytes, the plain metadata and the data key; an exception when anything was changed."""
    stored, metadata = bytes.fromhex(v["stored"]), v["stored_metadata"]
    expect(len(stored) >= HEADER + TAG and stored[:4] == MAGIC, "not an encrypted value")
    algorithm, sealed = stored[4], stored[6] == 1
    expect(stored[:7] == kind(algorithm, sealed), "not this version")
    n, m = stored[7], int.from_bytes(stored[8:10], "big")
    kek_id, wrapped, rest = stored[10 : 10 + n].decode(), stored[10 + n : 10 + n + m], stored[10 + n + m : HEADER]
    expect(not any(rest), "the header is not padded with zeros")
    expect(kek_id == v["kek_id"], "another key-encryption key")
    data_key = unwrap(kek_id, bytes.fromhex(v["kek"]), wrapped, context(algorithm, sealed, metadata, v["key"]))
    cipher = CIPHERS[algorithm](data_key)
    chunks = [stored[at : at + CHUNK + TAG] for at in range(HEADER, len(stored), CHUNK + TAG)]
    plain = b"".join(cipher.decrypt(nonce(i, i + 1 == len(chunks)), c, b"") for i, c in enumerate(chunks))
    if sealed:
        fields = json.loads(metadata)["fields"]
        expect(list(fields) == [FIELD], "the metadata is not sealed")
        text = fields[FIELD]
        blob = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        head = bytes([algorithm, n, m]) + kek_id.encode() + wrapped
        expect(blob.startswith(head), "the metadata is that of another value")
        metadata = cipher.decrypt(METADATA_NONCE, blob[len(head) :], b"").decode()
    return plain, metadata, data_key


def encode_record(v, wrap_nonce):
    wrapped = wrap(v["kek_id"], bytes.fromhex(v["kek"]), wrap_nonce, bytes.fromhex(v["wrapping_key"]), RECORD + v["name"].encode())
    kek_id = v["kek_id"].encode()
    return RECORD + bytes([len(kek_id)]) + len(wrapped).to_bytes(2, "big") + kek_id + wrapped


def decode_record(v):
    record = bytes.fromhex(v["record"])
    expect(record[:4] == RECORD, "not a record")
    n, m = record[4], int.from_bytes(record[5:7], "big")
    expect(len(record) == 7 + n + m and record[7 : 7 + n].decode() == v["kek_id"], "another record")
    return unwrap(v["kek_id"], bytes.fromhex(v["kek"]), record[7 + n :], RECORD + v["name"].encode())


def pattern(length):
    return bytes((i * 7 + i // 251) % 256 for i in range(length))


def make():
    """Everything that is random in earnest comes from the vector's name."""
    values, records = [], []
    about = '{"content_type":"text/plain","fields":{"n":1,"x":1.0},"tags":["a","ü"]}'
    for algorithm, word in ((1, "aes"), (2, "chacha")):
        for sealed in (False, True):
            for length, metadata in ((0, "{}"), (1, about), (40, about), (CHUNK, "{}"), (2 * CHUNK + 1, about)):
                name = f"{word}-{'sealed' if sealed else 'plain'}-metadata-{length}"
                chance = lambda what: hashlib.sha256(f"{name} {what}".encode()).digest()
                v = {"name": name, "kek_id": "kek-1", "kek": chance("kek").hex(), "algorithm": algorithm, "sealed": sealed}
                v |= {"key": f"some/ké y {length}", "metadata": metadata, "data_key": chance("data key").hex()}
                v["plain"] = pattern(length).hex()
                stored, v["stored_metadata"] = encode(v, chance("data key"), chance("nonce")[:12])
                v["wrapped"] = stored[10 + 5 : 10 + 5 + 60].hex()
                v["stored_sha256"] = hashlib.sha256(stored).hexdigest()
                if length <= 40:
                    v["stored"] = stored.hex()
                else:
                    # Byte i of the plain value is (7 i + floor(i / 251)) mod 256.
                    v["plain"] = f"pattern of {length} bytes"
                values.append(v)
    v = {"name": "0001-0123456789abcdef", "kek_id": "kek-1"}
    v |= {what.replace(" ", "_"): hashlib.sha256(what.encode()).hexdigest() for what in ("kek", "wrapping key")}
    v["record"] = encode_record(v, hashlib.sha256(b"nonce").digest()[:12]).hex()
    records.append(v)
    return {"values": values, "records": records}


def check(file):
    with open(file, encoding="utf-8") as f:
        vectors = json.load(f)
    for v in vectors["values"]:
        if v["plain"].startswith("pattern of "):
            v["plain"] = pattern(int(v["plain"].split()[2])).hex()
        data_key, wrapped = bytes.fromhex(v["data_key"]), bytes.fromhex(v["wrapped"])
        stored, metadata = encode(v, data_key, wrapped[:12])
        expect(hashlib.sha256(stored).hexdigest() == v["stored_sha256"], f"{v['name']}: encoding")
        expect(metadata == v["stored_metadata"], f"{v['name']}: encoding of the metadata")
        v.setdefault("stored", stored.hex())
        expect(decode(v) == (bytes.fromhex(v["plain"]), v["metadata"], data_key), f"{v['name']}: decoding")
    for v in vectors["records"]:
        expect(decode_record(v).hex() == v["wrapping_key"], f"{v['name']}: decoding")
        wrapped = bytes.fromhex(v["record"])[-60:]
        expect(encode_record(v, wrapped[:12]).hex() == v["record"], f"{v['name']}: encoding")
    print(len(vectors["values"]), "values and", len(vectors["records"]), "records")


def main():
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb == "check":
        check(sys.argv[2])
    elif verb == "make":
        print(json.dumps(make(), indent=1, ensure_ascii=False))
    elif verb == "decode":
        done = [decode(v) for v in json.load(sys.stdin)]
        json.dump([{"plain": plain.hex(), "metadata": metadata} for plain, metadata, _ in done], sys.stdout)
    elif verb == "encode":
        done = [encode(v, os.urandom(32), os.urandom(12)) for v in json.load(sys.stdin)]
        json.dump([{"stored": stored.hex(), "stored_metadata": metadata} for stored, metadata in done], sys.stdout)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
