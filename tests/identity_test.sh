#!/bin/sh
# The same bytes over MPI: 1, 2, 3 and 5 ranks, two schedules, 1 and 2 threads a rank, of the real program; and what a
# codec loses, inside one rank and between three.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/identity_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
golden=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)/llama3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# result RANKS SCHEDULE THREADS [NAME PLAN LINKS]: the reproducible columns and the adapter's checksum, into a file whose
# name it sets
result() {
	{
		echo "version: 1"
		echo "nodes:"
		i=0
		while [ $i -lt "$1" ]; do
			echo "  - {name: n$i, cores: $3}"
			i=$((i + 1))
		done
		echo "model: {path: $golden/model}"
		echo "lora: {rank: 4, targets: all, dropout: 0.1}"
		echo "data: {train: $golden/batches.safetensors, valid: $golden/batches.safetensors}"
		echo "train: {batch: 4, micro_batch: 1, steps: 6, learning_rate: 1e-2, checkpoint_every: 0}"
		# so small a model would be planned onto one rank: uniform, or by hand
		case ${5:-} in *layers*) solver=manual ;; *) solver=uniform ;; esac
		echo "plan: {schedule: $2, solver: $solver${5:+, $5}}"
		echo "links: {${6:-}}"
	} > "$work/job.yaml"
	out=$work/$1-$2-$3${4:+-$4}
	timeout 60 mpirun -np "$1" "$EDGEPIPE" train "$work/job.yaml" --out "$out" > "$out.log" 2>&1 || {
		cat "$out.log"
		exit 1
	}
	{
		grep -E '"kind":"(step|valid)"' "$out/metrics.jsonl" | sed -e 's/,"step_s":.*//'
		cksum < "$out/adapter/adapter_model.safetensors"
	} > "$out.result"
}

first=
for ranks in 1 2 3 5; do
	for schedule in eager gpipe; do
		for threads in 1 2; do
			result $ranks $schedule $threads
			first=${first:-$out.result}
			cmp "$first" "$out.result" || { echo "$ranks ranks, $schedule, $threads threads: other bytes"; exit 1; }
		done
	done
done
[ "$(wc -l < "$first")" = 9 ] || { echo "not 6 steps, 2 validations and an adapter"; cat "$first"; exit 1; }

for codec in int8 int4; do
	result 1 eager 1 $codec "cuts: [{after_block: 0, codec: $codec}, {after_block: 2, codec: $codec}]"
	inside=$out.result
	! cmp -s "$first" "$inside" || { echo "$codec loses nothing"; exit 1; }
	result 3 eager 2 $codec "layers: [1, 2, 2]" "default: {codec: $codec}"
	cmp "$inside" "$out.result" || { echo "3 ranks, $codec: other bytes than inside one rank"; exit 1; }
done
echo "ok: 16 runs, the same bytes; 2 codecs, the same between ranks as inside one"
