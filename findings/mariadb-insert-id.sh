#!/usr/bin/env bash
# MariaDB 10.11.19 (Debian 12): the session variable `insert_id` turns an upsert to another row.
#
# `insert_id` says which number the next insert gets from AUTO_INCREMENT. The documentation has it for replication; any user may set it, and
# `init_connect` may set it for all. Expected of INSERT … ON DUPLICATE KEY UPDATE into a table with a unique key: the row with that key is
# updated, or a new one is made. Seen: if the number belongs to a row, that row is the duplicate, for the primary key is looked at first. It is
# updated although the statement names neither it nor its number, and the row whose key is named stays as it was.
set -euo pipefail
. "$(dirname "$0")/mariadb.bash"

serve
upsert="insert into t (name, value) values ('b', 'new') on duplicate key update value = values(value)"
fresh="create or replace table t (id bigint auto_increment primary key, name varchar(9) unique, value varchar(9));
    insert into t (name, value) values ('a', 'old'), ('b', 'old')"
rows="select name, value from t order by id"
expect "without: $(ask --user=plain test -e "$fresh; $upsert; $rows" | paste -sd' ')" "without: a	old b	new"
expect "with: $(ask --user=plain test -e "$fresh; set insert_id = 1; $upsert; $rows" | paste -sd' ')" "with: a	new b	old"
