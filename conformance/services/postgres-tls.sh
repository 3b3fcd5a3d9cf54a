# PostgreSQL with TLS
#
# label: server
# needed: yes
# after: certificate.bash postgres.sh
# apt: postgresql
# user: nobody
# variable: STORAGE_TEST_POSTGRES_TLS
# address: postgres://storage:pa55-for-tests@localhost:{port}/storage
# port: 25433
# signal: INT
# limits: as of PostgreSQL. It takes encrypted connections only, and for the database `postgres` a client's certificate in place
#   of the password. Its own certificate is for `localhost`.

export PGSSLMODE=require

start() {
    certificate
    cat >clients.conf <<'CONF'
hostssl postgres all all cert
hostssl all all all scram-sha-256
CONF
    serve -c "hba_file=$DATA/clients.conf" -c ssl=on -c ssl_cert_file=server.pem -c ssl_key_file=server.key.pem \
        -c ssl_ca_file=ca.pem
}
