#!/usr/bin/env bash
# Linux 6.13 and later (seen on 6.18.44), ext4: asking for a file's times makes the next fsync of that file slower.
#
# A program that commits to SQLite in WAL mode looks between commits how long the log has become. Expected of `stat`: a read, which costs a
# microsecond or two. Seen: each commit behind one takes a third to a half longer. Since 6.13 the kernel notes that somebody has seen the times and
# gives the next write a fine-grained time of its own ("multigrain timestamps"), so that fsync has a changed inode to commit, where several writes
# shared one coarse time before. `statx` that asks for inode and size but for no times does not have this effect.
#
# Python's own sqlite3, nothing installed; the file is in TMPDIR, which must be on ext4 (not tmpfs). Rounds take turns; medians are compared.
# Seen, three runs: plain 121, 116, 126 µs; statx without times 125, 119, 130 µs (1.03, 1.03, 1.04); stat 162, 159, 173 µs (1.34, 1.37, 1.38)
set -euo pipefail

release=$(uname -r)
if [ "$(printf '%s\n' 6.13 "$release" | sort -V | head -1)" != 6.13 ]; then
    echo "not run: Linux $release has no multigrain timestamps" >&2
    exit 2
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
if [ "$(stat -f -c %T "$place")" != ext2/ext3 ]; then
    echo "not run: $place is not on ext4; set TMPDIR" >&2
    exit 2
fi
python3 - "$place" <<'PYTHON'
import ctypes, os, sqlite3, statistics, sys, time

place = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(256)
INO_AND_SIZE = 0x100 | 0x200


def size_only(path):
    if libc.statx(-100, path.encode(), 0, INO_AND_SIZE, buffer) != 0:
        raise OSError(ctypes.get_errno(), "statx")


looks = {"plain": lambda path: None, "statx without times": size_only, "stat": os.stat}
databases = {}
for name in looks:
    database = sqlite3.connect(f"{place}/{name}.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
    databases[name] = database
value, taken = b"v" * 4096, {name: [] for name in looks}
for turn in range(60):
    for name, look in looks.items():
        for key in range(20):
            look(f"{place}/{name}.db-wal")
            begun = time.perf_counter()
            databases[name].execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, value))
            taken[name].append(time.perf_counter() - begun)
medians = {name: statistics.median(times) * 1e6 for name, times in taken.items()}
ratio = {name: median / medians["plain"] for name, median in medians.items()}
print(", ".join(f"{name} {medians[name]:.0f} µs ({ratio[name]:.2f})" for name in looks))
sys.exit(not (ratio["stat"] > 1.12 and ratio["statx without times"] < 1.08))
PYTHON
