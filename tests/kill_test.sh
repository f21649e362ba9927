#!/bin/sh
# Kills ranks and mpirun at random moments, and resumes until the run is done, on 5, 3 and 1 ranks in turn: the joined
# log and the adapter must be the bytes of an uninterrupted run, and no more than checkpoint_every steps may be lost.
#
#   KILLS=12 SEED=1 EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/kill_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
kills=${KILLS:-12} seed=${SEED:-1} every=20 steps=400
echo "seed $seed (reproduce: SEED=$seed sh tests/kill_test.sh)"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
golden=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)/llama

# topology RANKS: writes a file of that many nodes, prints its path
topology() {
	{
		echo "version: 1"
		echo "name: kill"
		echo "nodes:"
		i=0
		while [ $i -lt "$1" ]; do
			echo "  - {name: n$i, cores: 1}"
			i=$((i + 1))
		done
		echo "model: {path: $golden/model}"
		echo "lora: {init: $golden/initial, dropout: 0.0}"
		echo "data: {train: $golden/batches.safetensors, valid: $golden/batches.safetensors}"
		echo "train: {batch: 4, micro_batch: 1, steps: $steps, learning_rate: 1e-3, warmup: 5, validate_every: 50, checkpoint_every: $every}"
		echo "plan: {solver: uniform}"	# a stage on every rank, however small the model
	} > "$work/$1.yaml"
	echo "$work/$1.yaml"
}

# train RANKS DIR OPTIONS: the run, in this shell's process, so that its pid is mpirun's
train() {
	file=$(topology "$1") ranks=$1 out=$2
	shift 2
	exec mpirun -np "$ranks" "$EDGEPIPE" train "$file" --out "$out" "$@" > "$out.log" 2>&1
}

# random N: a number below N; a function of the seed and of how often it was asked
asked=0
random() {
	asked=$((asked + 1))
	drawn=$(awk -v s="$seed" -v n="$asked" -v m="$1" \
		'BEGIN { srand(s * 1000 + n); for (i = 0; i < 7; i++) x = rand(); print int(x * m) }')
	# Below 2^31, or mawk's generator saturates.
}

# reproducible DIR: the columns that must be equal
reproducible() {
	grep -E '"kind":"(step|valid)"' "$1/metrics.jsonl" | sed -e 's/,"step_s":.*//'
}

last_step() {
	sed -n 's/^{"kind":"step","step":\([0-9]*\),.*}$/\1/p' "$1/metrics.jsonl" 2> /dev/null | tail -n 1
}

now_ms() {
	echo $(($(date +%s%N) / 1000000))
}

start=$(now_ms)
(train 5 "$work/whole") || { cat "$work/whole.log"; exit 1; }
whole_ms=$(($(now_ms) - start))
echo "uninterrupted: ${whole_ms} ms"

# wait_ms PID MS: or until the process has ended
wait_ms() {
	until=$(($(now_ms) + $2))
	while [ "$(now_ms)" -lt $until ] && kill -0 "$1" 2> /dev/null; do
		sleep 0.02
	done
}

runs() {
	grep -c '"kind":"run"' "$work/killed/metrics.jsonl" 2> /dev/null || true
}

# same_as_whole: the finished run that was killed equals the one that was not
same_as_whole() {
	reproducible "$work/whole" > "$work/a"
	reproducible "$work/killed" > "$work/b"
	cmp "$work/a" "$work/b"
	cmp "$work/whole/adapter/adapter_model.safetensors" "$work/killed/adapter/adapter_model.safetensors"
	[ "$(wc -l < "$work/a")" -ge $steps ]
}

# A kill counts when it ended a run that was not done. A run that finishes too early is compared and starts anew. Where
# that one finishes too, the machine had more to do when the uninterrupted run was timed: kills come earlier then.
killed=0 attempt=0 worst=0 early=0
while :; do
	case $((attempt % 3)) in 0) ranks=5 ;; 1) ranks=3 ;; *) ranks=1 ;; esac
	attempt=$((attempt + 1))
	[ $attempt -lt 200 ] || { echo "no end after $attempt attempts"; cat "$work/killed.log"; exit 1; }
	before=$(last_step "$work/killed") earlier=$(runs)
	(train $ranks "$work/killed" --resume) &
	mpirun=$!
	if [ $killed -lt "$kills" ]; then
		random $((whole_ms * 7 / 10 + 300))
		wait_ms $mpirun "$drawn"
		# shellcheck disable=SC2046
		set -- $mpirun $(pgrep -P $mpirun || true)
		random $#
		shift "$drawn"
		kill -9 "$1" 2> /dev/null || true
	fi
	finished=1
	wait $mpirun || finished=0
	[ $finished = 1 ] || [ $killed -ge "$kills" ] || killed=$((killed + 1)) early=0
	if [ -n "$before" ] && [ "$(runs)" != "$earlier" ]; then
		from=$(sed -n 's/.*"kind":"run".*"from_step":\([0-9]*\),.*/\1/p' "$work/killed/metrics.jsonl" | tail -n 1)
		lost=$((before + 1 - from))
		[ $lost -le $worst ] || worst=$lost
	fi
	if [ $finished = 1 ]; then
		same_as_whole
		[ $killed -lt "$kills" ] || break
		early=$((early + 1))
		[ $early -lt 2 ] || whole_ms=$((whole_ms * 3 / 4))
		rm -rf "$work/killed" "$work/killed.log"
	fi
done

[ $worst -le $every ] || { echo "lost $worst steps, allowed $every"; exit 1; }
echo "ok: $killed kills, $attempt attempts on 5, 3 and 1 ranks, at most $worst steps repeated (allowed $every)"
