# PostgreSQL
#
# label: server
# needed: yes
# apt: postgresql
# user: nobody
# variable: STORAGE_TEST_POSTGRES
# address: postgres://storage:pa55-for-tests@127.0.0.1:{port}/storage
# port: 25432
# signal: INT
# limits: none known. The role is a superuser. Debian's package also makes a cluster of its own, which is not used here.

# Debian keeps the programs of each version in a directory of its own; the newest comes first.
for programs in /usr/lib/postgresql/*/bin; do PATH=$programs:$PATH; done

version() {
    psql --version >/dev/null
    postgres --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/'
}

prepare() {
    initdb --pgdata "$DATA" --username storage --pwfile <(echo pa55-for-tests) --auth scram-sha-256 \
        --encoding UTF8 --locale C.UTF-8
    echo 'create database storage' | postgres --single -D "$DATA" postgres
}

start() {
    serve
}

# Becomes the server, with these options too.
serve() {
    # After a crash PostgreSQL does not start while any process has the number in its pid file. No process can have the number
    # put in its place. Whether an older server still uses the data it finds out from the rest of that file.
    if [ -e "$DATA/postmaster.pid" ]; then sed -i '1s/.*/4194305/' "$DATA/postmaster.pid"; fi
    exec postgres -D "$DATA" -p "$PORT" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c max_connections=400 -c fsync=on -c synchronous_commit=on -c full_page_writes=on "$@"
}

ready() {
    PGPASSWORD=pa55-for-tests psql -h 127.0.0.1 -p "$PORT" -U storage -d storage -qtAc 'select 1'
}
