#!/bin/sh
# A rank that falls silent, or dies, while `edgepipe generate` and `edgepipe eval` are under way over MPI: every rank ends
# soon, says who was waited for, and the exit code tells that the same may work later.
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
campus=$(cd "$EDGEPIPE_SOURCE/topologies" && pwd)/campus
cat > "$work/job.yaml" << EOF
version: 1
nodes: [{name: a, cores: 1}, {name: b, cores: 1}, {name: c, cores: 1}]
model: {path: $campus/model}
data: {valid: $work/valid.txt, sequence: 128}
train: {batch: 8, micro_batch: 1}
plan: {solver: uniform}		# rank r has stage r
EOF
yes "The library is open on Monday. Where is physics?" | head -n 4000 > "$work/prompts.txt"
yes "The library is open on Monday. Where is physics?" | head -n 60000 > "$work/valid.txt"

rank() { # N: the process of rank N
	for pid in $(pgrep -f "$work/job.yaml"); do
		if tr '\0' '\n' < "/proc/$pid/environ" 2> /dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
			echo "$pid"
			return
		fi
	done
}

# under_way COMMAND OPTIONS...: starts it and waits until something has come of it; false where nothing does
under_way() {
	: > "$work/log"
	timeout -k 5 60 mpirun -np 3 "$EDGEPIPE" "$@" "$work/job.yaml" > "$work/log" 2> "$work/err" &
	job=$!
	for _ in $(seq 300); do
		[ "$(wc -l < "$work/log")" -lt 3 ] || return 0
		kill -0 "$job" 2> /dev/null || break
		sleep 0.1
	done
	fail "$1 did not get going"
	sed 's/^/    /' "$work/err"
	return 1
}

# ended NAME CODE SECONDS: the job ends with the code in time, and leaves nobody
ended() {
	start=$(date +%s) got=0
	wait "$job" || got=$?
	took=$(($(date +%s) - start))
	[ "$got" = "$2" ] || { fail "$1: exit $got, not $2"; sed 's/^/    /' "$work/err"; }
	[ "$took" -le "$3" ] || fail "$1: $took s"
	for _ in $(seq 100); do
		pgrep -f "$work/job.yaml" > /dev/null || return 0
		sleep 0.1
	done
	fail "$1: somebody is still there"
}

# silent RANK PATTERN COMMAND OPTIONS...
silent() {
	victim=$1 pattern=$2
	shift 2
	under_way "$@" || return 0
	kill -STOP "$(rank "$victim")"
	ended "$1, rank $victim silent" 75 20
	grep -Eq "rank [0-9]: error: .*($pattern).* for [0-9]+ s, far longer than usual" "$work/err" ||
		{ fail "$1, rank $victim silent: nobody says who was waited for"; sed 's/^/    /' "$work/err"; }
}

export EDGEPIPE_HANG_TIMEOUT=1
peers='a > b|b > c|last stage|first stage|rank [0-9]|other ranks'
for victim in 0 1 2; do
	silent $victim "$peers" generate --prompts "$work/prompts.txt" --tokens 50
done
silent 0 "$peers" eval
silent 2 "$peers" eval
unset EDGEPIPE_HANG_TIMEOUT
if under_way eval; then		# generate: see generate_test.sh
	kill -9 "$(rank 1)"
	ended "eval, rank 1 killed" 137 20
fi
finish
