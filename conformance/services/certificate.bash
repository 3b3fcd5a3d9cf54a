# What servers with encrypted connections share: a certificate for `localhost`, its key, and the certificate of its issuer, who
# also issued that of the tests' client (crates/storage-sql/tests/tls). They are for nothing else, and last until 2126.

# Puts the files into the working directory.
certificate() {
    cat >ca.pem <<'PEM'
-----BEGIN CERTIFICATE-----
MIIBnjCCAUWgAwIBAgIULZsYVj3MDkg9EfcFwY9zFAXnLAkwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRc3RvcmFnZS1zcWwgdGVzdHMwIBcNMjYxMTIyMTQzNTI1WhgP
MjEyNjEwMjkxNDM1MjVaMBwxGjAYBgNVBAMMEXN0b3JhZ2Utc3FsIHRlc3RzMFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeeiS3ED2Aadxetgj7Dy7pOnl1UQ2QiDf
AlR0n625KXlRfRW6LCukGSG9ibbVnuBqqLW3F9+B2mZhbz1PdVOR4KNjMGEwHQYD
VR0OBBYEFKmJOmrQYawfDynQm1OcGErI0XfWMB8GA1UdIwQYMBaAFKmJOmrQYawf
DynQm1OcGErI0XfWMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMAoG
CCqGSM49BAMCA0cAMEQCICnHKNqa4i20b8ADTLNRwyXIgI6Xul5QB2Q1H1sHIzPM
AiAP4iHSqEAGdIdxJIgtUbtTEpAR9f2unMrUXntfL7vf0Q==
-----END CERTIFICATE-----
PEM
    cat >server.pem <<'PEM'
-----BEGIN CERTIFICATE-----
MIIBvjCCAWSgAwIBAgIUc7oIAavVvK3l8QGvfUOyOm/BxEwwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRc3RvcmFnZS1zcWwgdGVzdHMwIBcNMjYxMTIyMTQzNTI1WhgP
MjEyNjEwMjkxNDM1MjVaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABP+2y8kqkuSGnP4kh4NGvdIRt3/vJzoXlhJ/WkwewGNc
7sKAcBVezewM9IohAmp1o4mqCCXXNNVjn0XsiEmO9DejgYkwgYYwCQYDVR0TBAIw
ADAOBgNVHQ8BAf8EBAMCB4AwEwYDVR0lBAwwCgYIKwYBBQUHAwEwFAYDVR0RBA0w
C4IJbG9jYWxob3N0MB0GA1UdDgQWBBQpXtMcF9qyJMIo+havrOAkJufv3DAfBgNV
HSMEGDAWgBSpiTpq0GGsHw8p0JtTnBhKyNF31jAKBggqhkjOPQQDAgNIADBFAiB9
IEuuITn2exmqnAOtsgZDawk+7crd1eMW27NInunqCwIhALrTHSYYAtDx2s0L7mhm
OYoy8Bs9IolszWQ+9u/J+NdS
-----END CERTIFICATE-----
PEM
    # Servers refuse a key that others can read.
    touch server.key.pem
    chmod 600 server.key.pem
    cat >server.key.pem <<'PEM'
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggUvRcvzKatd9L14i
bXIxN+1mzZGesgsZOH8TkdDbckWhRANCAAT/tsvJKpLkhpz+JIeDRr3SEbd/7yc6
F5YSf1pMHsBjXO7CgHAVXs3sDPSKIQJqdaOJqggl1zTVY59F7IhJjvQ3
-----END PRIVATE KEY-----
PEM
}
