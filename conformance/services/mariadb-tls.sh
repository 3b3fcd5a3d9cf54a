# MariaDB with TLS
#
# label: server
# needed: yes
# after: certificate.bash mariadb.sh
# apt: mariadb-server-core mariadb-client-core
# user: nobody
# variable: STORAGE_TEST_MARIADB_TLS
# address: mysql://storage:pa55-for-tests@localhost:{port}/storage
# port: 23307
# limits: as of MariaDB. It takes encrypted connections only. Its certificate is for `localhost`.

start() {
    certificate
    serve --require-secure-transport=ON --ssl-ca="$DATA/ca.pem" --ssl-cert="$DATA/server.pem" --ssl-key="$DATA/server.key.pem"
}

ready() {
    ask --ssl
}
