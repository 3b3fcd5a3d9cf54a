#!/usr/bin/env bash
# moto 5.2.5 (PyPI): in a bucket with versioning, a listing with a delimiter yields the common prefix of keys that are all deleted.
#
# Expected of ListObjectsV2 with `Delimiter=/` after the only key below `a/` was deleted (its newest version is a delete marker): nothing, as
# Amazon S3 and Ceph's gateway answer and as moto does without a delimiter. Seen: no key, but the common prefix `a/`. Without versioning there is none.
set -euo pipefail

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet 'moto[s3]==5.2.5'
seen=$(AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none "$place/venv/bin/python" - <<'PYTHON'
import boto3
from moto import mock_aws

with mock_aws():
    s3 = boto3.client("s3", region_name="us-east-1")
    for versioning in (False, True):
        bucket = f"bucket-{versioning}".lower()
        s3.create_bucket(Bucket=bucket)
        if versioning:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket=bucket, Key="a/b", Body=b"value")
        s3.delete_object(Bucket=bucket, Key="a/b")
        flat = s3.list_objects_v2(Bucket=bucket)
        folded = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
        prefixes = [found["Prefix"] for found in folded.get("CommonPrefixes", [])]
        print(f"versioning {versioning}: keys {flat['KeyCount']}, common prefixes {prefixes}")
PYTHON
)
printf '%s\n' "$seen"
[ "$seen" = "versioning False: keys 0, common prefixes []
versioning True: keys 0, common prefixes ['a/']" ]
