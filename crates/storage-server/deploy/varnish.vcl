# Varnish before storage-server. Tried with Varnish 7.1: crates/storage-server/tests/proxies.rs takes this file as it is, with other ports.
# Metadata travels in a header, for which it must be started with
#
#   -p http_req_hdr_len=128k -p http_req_size=256k -p http_resp_hdr_len=128k -p http_resp_size=256k
#   -p workspace_client=512k -p workspace_backend=512k
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8080";
    # Longer than the server's own timeouts.
    .first_byte_timeout = 90s;
    .between_bytes_timeout = 90s;
}

sub vcl_recv {
    # Only plain reads of what everybody may read are looked up. Varnish would drop conditions of reads, and take a token for no reason.
    if ((req.method != "GET" && req.method != "HEAD") || req.http.Authorization || req.http.If-Match
        || req.http.storage-transaction || req.url !~ "^/files/public%2F") {
        return (pass);
    }
    return (hash);
}

sub vcl_backend_fetch {
    # Varnish asks for gzip unprompted, and would hand out weakened etags.
    unset bereq.http.Accept-Encoding;
}

sub vcl_backend_response {
    # What is older than `Cache-Control` says is never handed out, but asked for by its etag.
    set beresp.grace = 0s;
    set beresp.keep = 1d;
    if (beresp.http.Cache-Control ~ "(private|no-store|no-cache)" || beresp.status >= 400) {
        set beresp.uncacheable = true;
        set beresp.ttl = 0s;
    }
}

sub vcl_deliver {
    set resp.http.X-Cache = obj.hits;
}
