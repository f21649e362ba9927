#!/bin/sh
# Runs every fuzz target of a build folder that was made with -DEDGEPIPE_FUZZ=ON: tests/run.sh fuzz builds it.
#
#   sh tests/fuzz/run.sh BUILD SECONDS [NAME...]
#
# As many at a time as there are cores. The search is the same each time, unless SEED names another one.
# What is new in the search stays in BUILD/corpus/NAME. A finding is written to BUILD/NAME-crash-..., shrunk by
#   BUILD/tests/fuzz_NAME -minimize_crash=1 -runs=10000 FILE
# and kept in tests/fuzz/corpus/NAME once it is mended.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
build=$(cd "$1" && pwd) seconds=$2
shift 2
[ $# -gt 0 ] || set -- $(cd "$here/corpus" && ls)
if [ $# -gt 1 ]; then
	printf '%s\n' "$@" | xargs -n 1 -P "$(nproc)" sh "$0" "$build" "$seconds"
	exit
fi

name=$1 log=$build/fuzz-$1.log
mkdir -p "$build/corpus/$name"
# No file of a corpus is larger than 64 KiB, so that 256 MiB more than it has to be enough for whoever reads it. None takes
# a second; others may have the cores.
if "$build/tests/fuzz_$name" -seed="${SEED:-1}" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=700 -malloc_limit_mb=256 \
	-max_len=65536 -artifact_prefix="$build/$name-" "$build/corpus/$name" "$here/corpus/$name" > "$log" 2>&1; then
	echo "fuzz $name: $(grep -o 'Done.*' "$log")"
else
	echo "fuzz $name: found something" >&2
	tail -n 40 "$log" >&2
	exit 1
fi
