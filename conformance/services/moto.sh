# moto
#
# label: third-party emulator
# apt: python3-venv
# variable: STORAGE_TEST_MOTO
# address: http://test:test@127.0.0.1:{port}
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
    exec "$programs/bin/moto_server" -H 127.0.0.1 -p "$PORT"
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET /moto-api/ HTTP/1.0\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 200 '
}
