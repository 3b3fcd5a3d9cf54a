#!/usr/bin/env bash
# MariaDB 10.11.19 (Debian 12): `sql_mode` is restored at the end of a compound block.
#
# `init_connect` runs for every ordinary user who connects, and is the usual way to give all sessions their settings. Expected: what a
# block (BEGIN NOT ATOMIC … END) in it sets stays for the session, as it does when each SET stands alone. Seen: other variables stay,
# and `sql_mode` has its old value again, without a warning; so a setting is lost as soon as it stands behind an IF. That a stored
# program keeps the `sql_mode` of its creation is documented; a block in `init_connect` is not stored.
set -euo pipefail
. "$(dirname "$0")/mariadb.bash"

serve
plain() {
    ask --user=plain -e 'select @@sql_mode, @@lock_wait_timeout'
}
ask --user=root -e "set global sql_mode = 'STRICT_ALL_TABLES', global lock_wait_timeout = 50"
ask --user=root -e "set global init_connect = 'set sql_mode = ''ANSI_QUOTES'', lock_wait_timeout = 77'"
expect "alone: $(plain)" "alone: ANSI_QUOTES	77"
ask --user=root -e "set global init_connect = 'begin not atomic set sql_mode = ''ANSI_QUOTES'', lock_wait_timeout = 77; end'"
expect "block: $(plain)" "block: STRICT_ALL_TABLES	77"
