# MariaDB
#
# label: server
# needed: yes
# apt: mariadb-server-core mariadb-client-core
# user: nobody
# variable: STORAGE_TEST_MARIADB
# address: mysql://storage:pa55-for-tests@127.0.0.1:{port}/storage
# port: 23306
# limits: not MySQL, which differs in its JSON type, its collations and in `returning`. The user may do everything.

version() {
    mariadb --version >/dev/null
    mariadbd --version | sed -E 's/.* Ver ([0-9.]+).*/\1/'
}

prepare() {
    mariadb-install-db --no-defaults --datadir="$DATA" --auth-root-authentication-method=normal --skip-test-db
    # The server runs these at every start.
    cat >"$DATA/init.sql" <<'SQL'
create database if not exists storage;
create user if not exists storage@'127.0.0.1' identified by 'pa55-for-tests';
grant all on *.* to storage@'127.0.0.1' with grant option;
SQL
}

start() {
    serve
}

# Becomes the server, with these options too.
serve() {
    # The socket's path is relative to the data directory, for an absolute one may be too long.
    exec mariadbd --no-defaults --datadir="$DATA" --port="$PORT" --bind-address=127.0.0.1 --socket=mariadb.sock \
        --pid-file=mariadb.pid --init-file="$DATA/init.sql" --skip-name-resolve --character-set-server=utf8mb4 \
        --max-connections=400 --innodb-flush-log-at-trx-commit=1 "$@"
}

ready() {
    ask
}

# Asks it something, with these options too.
ask() {
    mariadb --no-defaults "$@" -h 127.0.0.1 -P "$PORT" -u storage -ppa55-for-tests storage -e 'select 1'
}
