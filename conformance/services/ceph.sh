# Ceph RGW
#
# label: server
# needed: yes
# apt: radosgw ceph-mon ceph-osd ceph-common
# variable: STORAGE_TEST_CEPH
# address: http://CEPHKEY:CEPHSECRET@127.0.0.1:{port}
# port: 27480
# ports: 3
# limits: an S3 server on one node that keeps values in memory (6 GiB; when they are full, it does not answer
#   writes, so start it anew) and forgets them when it stops. If-Match takes an etag only without
#   its quotes (a defect of the server). The headers of server-side encryption are accepted and not echoed. A key for SSE-KMS is
#   `testkey-1`.

version() {
    ceph-mon --version >/dev/null
    ceph-osd --version >/dev/null
    radosgw --version | sed -E 's/^[^0-9]*([0-9.]+).*/\1/'
}

# A cluster of one monitor and one disk in memory, and the gateway; all end with the process that starts them. Each time anew.
start() {
    local monitor="[v2:127.0.0.1:$((PORT + 1)),v1:127.0.0.1:$((PORT + 2))]"
    local id osd_id osd_key
    id=$(cat /proc/sys/kernel/random/uuid)
    osd_id=$(cat /proc/sys/kernel/random/uuid)
    osd_key=$(ceph-authtool --gen-print-key)
    rm -rf "${DATA:?}"/*
    mkdir mon osd rgw run
    export CEPH_CONF=$DATA/ceph.conf
    cat >"$CEPH_CONF" <<CONF
[global]
fsid = $id
mon host = $monitor
public network = 127.0.0.0/8
ms bind ipv6 = false
keyring = $DATA/keyring
admin socket = $DATA/run/\$name.asok
run dir = $DATA/run
log to file = false
log to stderr = false
err to stderr = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 2000
mon warn on pool no redundancy = false
# By default the monitor ends, and all requests wait for it, when its file system is full to 95 %. It keeps some MB there.
mon data avail warn = 0
mon data avail crit = 0
[mon.a]
mon data = $DATA/mon
[osd]
osd data = $DATA/osd
osd objectstore = memstore
memstore device bytes = 6442450944
osd memory target = 939524096
osd op num shards = 2
[client.rgw.a]
rgw data = $DATA/rgw
# Without tcp_nodelay each request takes 45 ms more.
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw thread pool size = 16
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey-1=YmluCmJvb3N0CmJvb3N0LWJ1aWxkCmNlcGguY29uZgo=
rgw dns name =
# What was deleted or replaced stays for readers under way, by default for two hours; here memory is short.
rgw gc obj min wait = 20
rgw gc processor period = 10
rgw gc processor max time = 10
CONF
    ceph-authtool -C keyring --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool keyring --gen-key -n client.rgw.a --cap mon 'allow *' --cap osd 'allow *'
    ceph-authtool keyring -n osd.0 --add-key "$osd_key" --cap osd 'allow *' \
        --cap mon 'allow profile osd' --cap mgr 'allow profile osd'
    monmaptool --create --fsid "$id" --addv a "$monitor" monmap
    ceph-mon --mkfs -i a --monmap monmap --keyring keyring

    setpriv --pdeathsig KILL ceph-mon -f -i a &
    ceph --connect-timeout 30 osd new "$osd_id" -i - <<<"{\"cephx_secret\":\"$osd_key\"}"
    ceph-osd -i 0 --mkfs --osd-uuid "$osd_id"
    setpriv --pdeathsig KILL ceph-osd -f -i 0 &
    radosgw-admin user create -n client.rgw.a --uid test --display-name test --access-key CEPHKEY --secret-key CEPHSECRET
    exec radosgw -f -n client.rgw.a
}

ready() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    head -n 1 <&3 | grep -q ' 200 '
}
