"""A server with the six plain routes and nothing else, in Python's standard library: what somebody else may have written."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

VALUES = {}
LOCK = threading.Lock()


class Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def key(self):
        head, _, segment = self.path.partition("/files/")
        return unquote(segment, errors="strict") if head == "" and segment and "/" not in segment else None

    def answer(self, status, body=b"", head=(), length=None):
        self.send_response(status)
        for name, value in head:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path == "/files":
            with LOCK:
                keys = list(VALUES)
            self.answer(200, json.dumps({"keys": keys}).encode())
            return
        key = self.key()
        with LOCK:
            value = VALUES.get(key)
        if value is None:
            self.answer(404, b"not found")
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and self.command == "GET":
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(value))
            if start >= len(value):
                self.answer(416, head=[("Content-Range", f"bytes */{len(value)}")])
                return
            self.answer(206, value[start:end], [("Content-Range", f"bytes {start}-{end - 1}/{len(value)}")])
            return
        self.answer(200, value)

    do_HEAD = do_GET

    def do_PUT(self):
        key = self.key()
        length = self.headers.get("Content-Length")
        if key is None or length is None:
            self.answer(400 if key is None else 411)
            self.close_connection = True
            return
        value = self.rfile.read(int(length))
        if len(value) < int(length):
            self.close_connection = True
            return
        with LOCK:
            VALUES[key] = value
        self.answer(204)

    def do_DELETE(self):
        with LOCK:
            if self.path == "/files":
                VALUES.clear()
                self.answer(204)
            else:
                self.answer(204 if VALUES.pop(self.key(), None) is not None else 404)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        # Clients go when they like.
        pass


server = Server(("127.0.0.1", 0), Files)
print(server.server_address[1], flush=True)
# It ends with whoever started it.
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
