#!/bin/sh
# A rank that dies, and ranks that fall silent, under a real mpirun: the job ends soon, with the right exit code, says
# who waited for whom and how to go on, and what is left can be resumed.
set -eu
root=${EDGEPIPE_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
edgepipe=${EDGEPIPE:-$root/build/edgepipe}
. "$root/launch/env.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
	echo "fault_test: $1" >&2
	cat "$work/log" >&2
	exit 1
}

# Starts a run that would take long, and waits until it is well under way.
start() { # NAME OPTIONS...
	name=$1
	shift
	rm -rf "$work/run"
	mpirun -np 3 "$edgepipe" train "$work/job.yaml" --out "$work/run" "$@" > "$work/log" 2>&1 &
	job=$!
	for _ in $(seq 300); do
		if [ -e "$work/run/metrics.jsonl" ] && [ "$(grep -c '"kind":"step"' "$work/run/metrics.jsonl")" -ge 15 ]; then
			return
		fi
		kill -0 "$job" 2> /dev/null || break
		sleep 0.1
	done
	fail "$name: the run did not get going"
}

rank() { # N: the process of rank N of this run
	for pid in $(pgrep -f "train $work/job.yaml"); do
		if tr '\0' '\n' < "/proc/$pid/environ" 2> /dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
			echo "$pid"
			return
		fi
	done
}

finish() { # NAME CODE SECONDS: the job ends with the code, in time
	name=$1 code=$2 patience=$3 start=$(date +%s) got=0
	wait "$job" || got=$?
	took=$(($(date +%s) - start))
	[ "$got" = "$code" ] || fail "$name: exit code $got, not $code"
	[ "$took" -le "$patience" ] || fail "$name: took $took s"
	grep -q -- '--resume' "$work/log" || fail "$name: nothing says how to go on"
	tail -n 20 "$work/log" | grep -q 'the run can go on: ' || fail "$name: the way to go on is not at the end"
	echo "fault_test: $name: exit code $got after $took s"
}

cat > "$work/job.yaml" << EOF
version: 1
nodes: [{name: a, cores: 1}, {name: b, cores: 1}, {name: c, cores: 1}]
model: {path: $root/tests/golden/gpt2/model}
lora: {init: $root/tests/golden/gpt2/initial}
data: {train: $root/tests/golden/gpt2/batches.safetensors}
train: {batch: 4, micro_batch: 1, steps: 1000000, checkpoint_every: 100}
EOF

for victim in 0 2; do
	start "rank $victim killed"
	kill -9 "$(rank $victim)"
	finish "rank $victim killed" 137 5
done

export EDGEPIPE_HANG_TIMEOUT=2
for victim in 0 1 2; do
	start "rank $victim stopped"
	kill -STOP "$(rank $victim)"
	finish "rank $victim stopped" 75 10
	grep -q 'rank [0-2]: error: step [0-9]*: .*(.*) for [0-9]* s, far longer than usual' "$work/log" ||
		fail "rank $victim stopped: nobody says who was waited for"
	[ "$(grep -c 'far longer than usual' "$work/log")" -le 2 ] || fail "more than a line a rank"
done
export EDGEPIPE_HANG_TIMEOUT=0
start "watchdog off"
kill -STOP "$(rank 1)"
sleep 5
kill -0 "$job" || fail "watchdog off: the run ended"
kill -CONT "$(rank 1)"
kill -TERM "$job"
wait "$job" || true

unset EDGEPIPE_HANG_TIMEOUT
steps=$(($(grep -c '"kind":"step"' "$work/run/metrics.jsonl") + 20))
mpirun -np 3 "$edgepipe" train "$work/job.yaml" --out "$work/run" --resume --set train.steps=$steps > "$work/log" 2>&1 ||
	fail "the run cannot be resumed"
grep -q 'going on after the checkpoint' "$work/log" || fail "resumed from nothing"
echo "fault_test: resumed"
