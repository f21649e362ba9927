#!/bin/sh
# The whole way, from a fresh Debian 12 to a fine-tuned model: installs what is missing, builds, and runs five
# ranks as one pipeline. Arguments go to `edgepipe train`.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
start=$PWD
cd "$root"
echo "edgepipe: 1/3 packages (launch/packages.txt)"
sh launch/install.sh
echo "edgepipe: 2/3 build into build/"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ cmake --preset release -G Ninja -DEDGEPIPE_TESTS=OFF -DEDGEPIPE_BENCH=OFF && cmake --build build; } > "$log" 2>&1 ||
	{ cat "$log" >&2; exit 70; }
echo "edgepipe: 3/3 mpirun -np 5 edgepipe train topologies/campus.yaml $*"
. launch/env.sh
cd "$start"
PATH="$root/build:$PATH" mpirun -np 5 edgepipe train "$root/topologies/campus.yaml" "$@"
