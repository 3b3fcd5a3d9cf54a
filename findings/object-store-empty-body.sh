#!/usr/bin/env bash
# object_store 0.14.2: `HttpRequestBody::is_empty` of a body made from a `PutPayload` says the opposite.
#
# Whoever writes an `HttpService` of his own may ask it to leave the body out. Expected: true if there are no bytes. Seen: true if any
# piece of the payload has bytes, false if none has. Of a body made from `Bytes` it is right, and so is `content_length` of both.
set -euo pipefail
. "$(dirname "$0")/object_store.bash"

seen=$(run <<'RUST'
use object_store::{PutPayload, client::HttpRequestBody};

fn main() {
    for text in ["", "text"] {
        let bodies: [HttpRequestBody; 2] = [String::from(text).into(), PutPayload::from(text).into()];
        for (of, body) in ["a string", "a payload"].into_iter().zip(bodies) {
            println!("of {} bytes from {of}: is_empty = {}", body.content_length(), body.is_empty());
        }
    }
}
RUST
)
expect "$seen" "of 0 bytes from a string: is_empty = true
of 0 bytes from a payload: is_empty = false
of 4 bytes from a string: is_empty = false
of 4 bytes from a payload: is_empty = true"
