# MariaDB 10.11.19 of Debian 12 in a temporary folder, for scripts that source this. `serve [OPTION…]` starts it, with a user `root` and a
# user `plain` who has no privileges but on the database `test`; `ask [OPTION…]` is a client of it. At the end of the script all is removed.

work=$(mktemp -d)
server=

finish() {
    if [ -n "$server" ]; then
        kill "$server"
        wait "$server" || true
    fi
    rm -rf "$work"
}
trap finish EXIT
cd "$work"

apt-get -qq -o APT::Sandbox::User="$(id -un)" download mariadb-server-core=1:10.11.19-0+deb12u1 mariadb-client-core=1:10.11.19-0+deb12u1
for package in *.deb; do dpkg -x "$package" .; done
options=(--no-defaults --basedir="$work/usr" --datadir="$work/data")
if [ "$(id -u)" = 0 ]; then options+=(--user=root); fi
usr/bin/mariadb-install-db "${options[@]}" --auth-root-authentication-method=normal --skip-test-db >install.log 2>&1 ||
    { cat install.log >&2; exit 1; }

ask() {
    usr/bin/mariadb --no-defaults --socket="$work/socket" --skip-column-names "$@"
}

serve() {
    usr/sbin/mariadbd "${options[@]}" --skip-networking --socket="$work/socket" --pid-file="$work/pid" "$@" >server.log 2>&1 &
    server=$!
    for _ in $(seq 100); do
        if ask --user=root -e 'select version()' 2>/dev/null; then
            ask --user=root -e "create database test; create user plain@localhost; grant all on test.* to plain@localhost"
            return
        fi
        sleep 0.1
    done
    cat server.log >&2
    exit 1
}

# expect SEEN EXPECTED
expect() {
    echo "$1"
    if [ "$1" != "$2" ]; then
        printf 'this is another behaviour than was found:\n%s\n' "$2" >&2
        exit 1
    fi
}
