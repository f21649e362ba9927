#!/bin/sh
# A rank that dies, and ranks that fall silent, under a real mpirun: the job ends soon, with the right exit code, says
# who waited for whom and how to go on, and what is left can be resumed by the very command that was printed.
set -eu
root=${EDGEPIPE_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
edgepipe=${EDGEPIPE:-$root/build/edgepipe}
stop_at=${EDGEPIPE_BUILD:-$(dirname "$edgepipe")}/tests/libstop_at.so
. "$root/launch/env.sh"
PATH=$(cd "$(dirname "$edgepipe")" && pwd):$PATH
work=$(mktemp -d)
# A path that a shell would split, and longer than most buffers.
long=$(printf '%0200d' 0)
run="$work/it's run 4/$long/$long/$long/$long/$long/run"
mkdir -p "$(dirname "$run")"
trap 'rm -rf "$work"' EXIT

fail() {
	echo "fault_test: $1" >&2
	cat "$work/log" >&2
	exit 1
}

# What another program on this machine can bring about by taking the cores for a second: it is tried again.
slow() {
	echo "fault_test: $1"
	kill "$job" 2> /dev/null && wait "$job"
	exit 9
}

# tried COMMAND...: in a shell of its own, thrice where it was slow
tried() {
	for _ in 1 2 3; do
		got=0
		("$@") || got=$?
		[ $got = 9 ] || break
	done
	[ $got != 9 ] || cat "$work/log" >&2
	[ $got = 0 ] || exit 1
}

# Starts three ranks of a program anew; it must not hang for ever here.
launch() { # PROGRAM ARGUMENTS...
	rm -rf "$run"
	timeout -k 5 120 mpirun -np 3 "$@" > "$work/log" 2>&1 &
	job=$!
}

# Starts a run that would take long, and waits until it is well under way: beyond a checkpoint.
start() { # NAME OPTIONS...
	name=$1
	shift
	launch "$edgepipe" train "$work/job.yaml" --out "$run" "$@"
	for _ in $(seq 300); do
		if [ -e "$run/metrics.jsonl" ] && [ "$(grep -c '"kind":"step"' "$run/metrics.jsonl")" -ge 110 ]; then
			return
		fi
		kill -0 "$job" 2> /dev/null || break
		sleep 0.1
	done
	if kill -0 "$job" 2> /dev/null || grep -q 'far longer than usual' "$work/log"; then
		slow "$name: the run did not get going"
	fi
	fail "$name: the run ended"
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
	[ "$took" -le "$patience" ] || slow "$name: took $took s"
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
plan: {solver: uniform}		# rank r has stage r, below too
EOF

# What ranks said when they gave up: each once, and what by.
gave_up() { # NAME PATTERN
	said=$(grep 'far longer than usual' "$work/log" || true)
	echo "$said" | grep -Eq "$2" || slow "$1: nobody says who was waited for, but: $said"
	[ -z "$(echo "$said" | grep -o 'rank [0-9]*: error' | sort | uniq -d)" ] || fail "$1: more than a line a rank"
	[ -z "$(echo "$said" | grep -v ' (.*) for [0-9]* s, ' || true)" ] || fail "$1: a line names no peer"
}

# Kills a rank while training is under way.
killed() { # RANK
	start "rank $1 killed"
	kill -9 "$(rank "$1")" || slow "no rank $1"
	finish "rank $1 killed" 137 5
}

# Stops a rank while training is under way.
stopped() { # RANK SECONDS PATTERN OPTIONS...
	victim=$1 seconds=$2 pattern=$3
	shift 3
	start "rank $victim stopped" "$@"
	kill -STOP "$(rank "$victim")" || slow "no rank $victim"
	finish "rank $victim stopped" 75 "$seconds"
	gave_up "rank $victim stopped" "$pattern"
}

# Stops a rank at one place of a short run.
stopped_at() { # RANK PLACE SECONDS PATTERN
	launch -x "LD_PRELOAD=$stop_at" -x "STOP_RANK=$1" -x "STOP_AT=$2" "$edgepipe" train "$work/job.yaml" \
		--out "$run" --set train.steps=3 --set "data.valid=$root/tests/golden/gpt2/batches.safetensors"
	finish "rank $1 stopped at $2" 75 "$3"
	gave_up "rank $1 stopped at $2" "$4"
}

tried killed 0
tried killed 2

export EDGEPIPE_HANG_TIMEOUT=1
tried stopped 0 5 'rank [12]: error: step [0-9]*: '
tried stopped 1 5 'rank [02]: error: step [0-9]*: '
tried stopped 2 5 'rank [01]: error: step [0-9]*: '
# Here rank 2 has no stage, and nobody waits for it but rank 0 for its times.
tried stopped 2 5 'rank 0: error: step [0-9]*: waiting for the times \(rank 2\)' --set plan.solver=manual --set 'plan.layers=[3,2,out]'
tried stopped_at 0 '"kind":"run"' 10 'step 0: waiting for the (activations of|data of the validation).* for '
tried stopped_at 0 adapter 12 'step 3: at the adapter \(rank 0 or its disk\)'
tried stopped_at 1 MPI_Finalize 7 'rank [02]: error: ending \(the other ranks\)'

export EDGEPIPE_HANG_TIMEOUT=0
start "watchdog off" --set 'nodes.0.memory=4 GiB' --set plan.solver=manual --set 'plan.layers=[1,2,2]'
kill -STOP "$(rank 1)"
sleep 4
kill -0 "$job" || fail "watchdog off: the run ended"
kill -CONT "$(rank 1)"
kill -TERM "$(pgrep -P "$job")"
wait "$job" || true
unset EDGEPIPE_HANG_TIMEOUT

# As printed; only where it ends is said in addition.
words=$(sed -n 's/^edgepipe: the run can go on: //p' "$work/log" | tail -n 1)
[ -n "$words" ] || fail "nothing says how to go on"
steps=$(($(grep -c '"kind":"step"' "$run/metrics.jsonl") + 20))
sh -c "$words --set train.steps=$steps" > "$work/log" 2>&1 || fail "the run cannot be resumed by: $words"
grep -q 'going on after the checkpoint' "$work/log" || fail "resumed from nothing"
grep -q '"kind":"end"' "$run/metrics.jsonl" || fail "what was resumed is another run"
echo "fault_test: resumed"
