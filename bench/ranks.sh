#!/bin/sh
# What a pipeline of N ranks holds beside one rank with the same model: weights and adapters of all ranks together, and
# every rank's peak memory beside its estimate.
#
#   sh bench/ranks.sh gpt2 --ranks 5
#
#   MODEL               tiny, gpt2, gpt2-medium, qwen2.5-0.5b: shapes of make_model, random weights
#   --ranks 5           one thread each
#   --sequence 256      tokens of a sequence
#   --batch 8           sequences of a step
#   --micro-batch 1     sequences of a micro-batch
#   --steps 8           so that the random tokens touch the whole embedding, as a real run does
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

model='' ranks=5 sequence=256 batch=8 micro=1 steps=8 folder='' build=$root/build
take_options 'MODEL ranks sequence batch micro-batch=micro steps folder build' "$@"
[ -n "$model" ] || fail "which model? For example: sh bench/ranks.sh gpt2"

need_build
[ -n "$folder" ] || folder=$work
make_inputs "$model" "$sequence" $((batch * steps))

# topology RANKS NODE_KEYS: writes $work/RANKS.yaml
topology() {
	{
		echo "version: 1"
		echo "name: ranks"
		echo "nodes:"
		for n in $(seq "$1"); do
			echo "  - {name: n$n, cores: 1$2}"
		done
		echo "model: {path: $folder/$model}"
		echo "lora: {rank: 8, alpha: 16, targets: attention, dropout: 0.0}"
		echo "data: {train: $tokens}"
		echo "train: {batch: $batch, micro_batch: $micro, steps: $steps, learning_rate: 1e-3}"
	} > "$work/$1.yaml"
}

train() {
	mpirun -np "$1" "$build/edgepipe" train "$work/$1.yaml" --out "$work/run$1" --overwrite > "$work/log" 2>&1
}

# parts RANKS: "node weights adapters" of every stage, in bytes to three digits. Only a refusal names the parts of an
# estimate, so nodes of 1 MiB ask for one.
parts() {
	topology "$1" ", memory: 1 MiB"
	train "$1" && fail "$model fits into 1 MiB?" 70
	grep "^  'n[0-9]*' (stage" "$work/log" | awk '
		function bytes(number, unit) {
			return number * (unit ~ /^GiB/ ? 2 ^ 30 : unit ~ /^MiB/ ? 2 ^ 20 : unit ~ /^KiB/ ? 2 ^ 10 : 1)
		}
		{
			for (i = 1; i < NF; i++) {
				if ($i ~ /weights$/) weights = bytes($(i + 1), $(i + 2))
				if ($i == "adapters") adapters = bytes($(i + 1), $(i + 2))
			}
			print substr($1, 2, length($1) - 2), weights, adapters
		}'
}

# measure RANKS: "node weights adapters estimate peak" of every stage goes to $work/RANKS
measure() {
	parts "$1" > "$work/parts"
	topology "$1" ''
	train "$1" || { cat "$work/log" >&2; exit 1; }
	check_loss "$work/run$1/metrics.jsonl"
	json_numbers memory_bytes < "$work/run$1/plan.json" > "$work/estimates"
	steps_of "$work/run$1/metrics.jsonl" | tail -n 1 | tr ' ' '\n' | sed 1,2d > "$work/peaks"
	[ "$(wc -l < "$work/parts")" = "$1" ] || fail "the refusal does not name $1 stages" 70
	paste -d ' ' "$work/parts" "$work/estimates" "$work/peaks" > "$work/$1"
}

echo "$(cpu_name); $model, $batch x $sequence tokens a step, micro-batches of $micro, fp32"
printf '%-6s %-5s %9s %9s %9s %9s  %s\n' ranks node weights adapters estimate peak 'estimate/peak (goal: 1 to 1.05)'
for n in 1 "$ranks"; do
	measure "$n"
	awk -v n="$n" '{ printf "%-6d %-5s %5.1f MiB %5.1f MiB %5.1f MiB %5.1f MiB  %.3f%s\n", n, $1, $2 / 1048576,
		$3 / 1048576, $4 / 1048576, $5 / 1048576, $4 / $5, ($4 < $5 || $4 > 1.05 * $5) ? " MISSED" : "" }' "$work/$n"
done

# The head of a tied model stands on the first and on the last rank.
width=$(json_numbers n_embd < "$folder/$model/config.json")
[ -n "$width" ] || width=$(json_numbers hidden_size < "$folder/$model/config.json")
cat "$work/1" "$work/$ranks" | awk -v v="$vocabulary" -v c="$width" '
	{ held = $2 + $3; if (NR == 1) one = held; else all += held }
	END {
		second = 4 * v * c
		printf "weights and adapters: %.0f MiB on one rank, %.0f MiB on all together, of which a second head %.0f MiB\n",
			one / 1048576, all / 1048576, second / 1048576
		printf "without the second head %.3f of one rank (goal: at most 1.05)%s\n", (all - second) / one,
			(all - second > 1.05 * one) ? " MISSED" : ""
	}'
