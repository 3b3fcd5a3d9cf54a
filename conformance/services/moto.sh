# moto
#
# label: third-party emulator
# needed: yes
# apt: python3-venv
# variable: STORAGE_TEST_MOTO
# address: http://MOTOKEY:MOTOSECRET@127.0.0.1:{port}
# port: 25000
# limits: an emulator of Amazon S3 that keeps conditions and versions right. It takes any credentials and any Content-MD5, wrong
#   ones included. It keeps values in memory and forgets them when it stops.

pin=5.2.5
programs=$CACHE/moto-$pin

install() {
    python3 -m venv "$programs"
    "$programs/bin/pip" install --quiet --disable-pip-version-check "moto[s3,server]==$pin"
}

version() {
    "$programs/bin/python" -c 'from importlib.metadata import version; print(version("moto"))'
}

start() {
    # The body of a request is read before its turn, so that a slow client does not hold up the others.
    exec "$programs/bin/python" -c '
import io, sys, threading
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

moto, turn = create_backend_app("s3"), threading.Lock()

def serial(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with turn:
        return list(moto(environ, start_response))

class Handler(MotoRequestHandler):
    disable_nagle_algorithm = True

    def log_request(self, *_):
        pass

run_simple("127.0.0.1", int(sys.argv[1]), serial, threaded=True, request_handler=Handler)
' "$PORT"
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 200 '
}
