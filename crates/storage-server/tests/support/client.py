"""All six routes, with nothing but Python's standard library."""

import json
import sys
import urllib.error
import urllib.request
from urllib.parse import quote

BASE = sys.argv[1]


def ask(method, path, body=None):
    request = urllib.request.Request(BASE + path, data=body, method=method)
    request.add_header("Content-Type", "text/plain")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as answer:
        return answer.status, answer.headers, answer.read()


key = "/files/" + quote("notes/für heute ☂", safe="")
assert ask("PUT", key, b"water the plants")[0] == 200
status, headers, value = ask("GET", key)
assert (status, value, headers["Content-Type"]) == (200, b"water the plants", "text/plain")
assert ask("HEAD", key)[1]["Content-Length"] == "16"
assert json.loads(ask("GET", "/files")[2]) == {"keys": ["notes/für heute ☂"]}
assert ask("DELETE", key)[0] == 204
try:
    ask("GET", key)
except urllib.error.HTTPError as absent:
    assert absent.code == 404 and json.load(absent)["kind"] == "not_found"
else:
    raise AssertionError("expected that it is gone")
ask("PUT", key, b"again")
assert ask("DELETE", "/files")[0] == 204
assert json.loads(ask("GET", "/files")[2]) == {"keys": []}
print("all six")
