#!/bin/sh
# Training speed and memory of one node, in rounds: tokens a second beside the machine's own matrix products, and peak
# memory beside the program's own estimate. With --peer, another trainer takes every second turn. The peer is any
# command whose last line is a JSON object with tokens_per_s and peak_rss_bytes.
#
#   sh bench/train.sh gpt2 --threads 2
#   sh bench/train.sh gpt2 --rounds 5 --peer "python peer.py --dtype fp32 --model gpt2 --threads 2"
#
#   MODEL               tiny, gpt2, gpt2-medium, qwen2.5-0.5b: shapes of make_model, random weights
#   --sequence 512      tokens of a sequence
#   --batch 4           sequences of a step
#   --micro-batch 4     sequences of a micro-batch
#   --steps 4           timed, in every round; --drop 1: untimed before them
#   --threads N         (default: all CPUs)
#   --rounds 3          undisturbed ones: those in which other processes took more than 0.1 cores are repeated, at most
#                       as often again
#   --targets WORDS     of LoRA, as in a topology file (default: all products of attention that read its input, and for
#                       Qwen its output too, which is what the peer's `attn` means)
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

model='' sequence=512 batch=4 micro=4 steps=4 drop=1 rounds=3 targets='' folder='' peer='' build=$root/build
threads=$(getconf _NPROCESSORS_ONLN)
take_options 'MODEL sequence batch micro-batch=micro steps drop threads rounds targets folder build peer' "$@"
[ -n "$model" ] || fail "which model? For example: sh bench/train.sh gpt2"
[ -n "$targets" ] || case $model in qwen*) targets='[q_proj, k_proj, v_proj, o_proj]' ;; *) targets=attention ;; esac

need_build
[ -n "$folder" ] || folder=$work

make_inputs "$model" "$sequence" $((batch * (drop + steps)))
cat > "$work/one.yaml" << END
version: 1
name: one
nodes:
  - {name: one, cores: $threads}
model: {path: $folder/$model}
lora: {rank: 8, alpha: 16, targets: $targets, dropout: 0.0}
data: {train: $tokens}
train: {batch: $batch, micro_batch: $micro, steps: $((drop + steps)), learning_rate: 1e-3}
END

# peak_round: the machine's own products, a number a round in gemm. Their best round is the peak, as nothing but the
# machine limits it.
peak_round() {
	"$build/bench/gemm" --peak --rounds 2 --threads "$threads" > "$work/log"
	sed -n 's/^peak.* \([0-9.]*\) GF.*/\1/p' "$work/log" >> "$work/gemm"
}

# own_round N: writes tokens/s of every timed step to own.N, "peak estimate" to own.N.memory
own_round() {
	"$build/edgepipe" train "$work/one.yaml" --out "$work/run" --overwrite > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; return 1; }
	check_loss "$work/run/metrics.jsonl"
	steps_of "$work/run/metrics.jsonl" | sed "1,${drop}d" | cut -d ' ' -f 2 > "$work/own.$1"
	echo "$(steps_of "$work/run/metrics.jsonl" | tail -n 1 | cut -d ' ' -f 3)" \
		"$(json_numbers memory_bytes < "$work/run/plan.json")" > "$work/own.$1.memory"
}

# peer_round N: the same of the peer, which reports its median alone
peer_round() {
	sh -c "$peer" > "$work/log" 2> "$work/errors" || { cat "$work/errors" >&2; return 1; }
	tail -n 1 "$work/log" | json_numbers tokens_per_s > "$work/peer.$1"
	tail -n 1 "$work/log" | json_numbers peak_rss_bytes > "$work/peer.$1.memory"
	[ -s "$work/peer.$1" ] || fail "the last line of the peer is no JSON object with tokens_per_s" 65
}

# ratio_of N: edgepipe's tokens a second in round N over the peer's
ratio_of() {
	echo "$(median < "$work/own.$1") $(cat "$work/peer.$1")" | awk '{ printf "%.3f\n", $1 / $2 }'
}

# row NAME MEDIAN RANGE PEAK_BYTES
row() {
	awk -v name="$1" -v s="$2" -v range="$3" -v bytes="$4" -v flop="$flop" -v gemm="$gemm" 'BEGIN {
		printf "%-10s %10.1f %19s %8.1f %8.0f %% %11.0f MiB\n", name, s, range, s * flop / 1e9,
			100 * s * flop / 1e9 / gemm, bytes / 1048576 }'
}

# each PREFIX SUFFIX: one file of every kept round
each() {
	for n in $kept; do
		cat "$work/$1.$n$2"
	done
}

largest() {
	sort -n | tail -n 1
}

summary() {
	own=$(each own '' | median) own_peak=$(each own .memory | cut -d ' ' -f 1 | largest)
	estimate=$(each own .memory | cut -d ' ' -f 2 | largest)
	gemm=$(largest < "$work/gemm")
	echo
	echo "peak       $gemm GF/s: OpenBLAS's sgemm of large squares, the best of all rounds"
	printf '%-10s %10s %19s %8s %10s %15s\n' '' tokens/s range GF/s 'of peak' 'peak memory'
	row edgepipe "$own" "$(each own '' | range)" "$own_peak"
	[ -z "$peer" ] || row peer "$(each peer '' | median)" "$(each peer '' | range)" "$(each peer .memory | largest)"
	echo
	echo "$estimate $own_peak" | awk '{ printf "memory     estimated %.0f MiB, %.3f of the peak (goal: 1 to 1.05)\n",
		$1 / 1048576, $1 / $2 }'
	[ -n "$peer" ] || return 0
	for n in $kept; do
		ratio_of "$n"
	done > "$work/ratios"
	echo "ratio      $(echo "$own $(each peer '' | median)" | awk '{ printf "%.2f", $1 / $2 }') of the medians," \
		"$(range < "$work/ratios") round by round (goal: 1.3, never below 1)"
	echo "$own_peak $(each peer .memory | largest)" |
		awk '{ printf "memory     %.2f of the peer (goal: at most 0.4)\n", $1 / $2 }'
}

echo "$(cpu_name), $(getconf _NPROCESSORS_ONLN) CPUs; $model, $targets, $batch x $sequence tokens a step," \
	"micro-batches of $micro, $threads threads, fp32"

good=0 round=0 kept=''
while [ "$good" -lt "$rounds" ] && [ "$round" -lt $((2 * rounds)) ]; do
	round=$((round + 1))
	peak_round
	watch_start
	own_round $round
	watch_end
	others=$other_cores
	if [ -n "$peer" ]; then
		watch_start
		peer_round $round
		watch_end
		others="$others $other_cores"
	fi
	line="round $round: edgepipe $(median < "$work/own.$round") tokens/s"
	[ -z "$peer" ] || line="$line, peer $(cat "$work/peer.$round"), ratio $(ratio_of $round)"
	if is_quiet "$others"; then
		good=$((good + 1))
		kept="$kept $round"
	else
		line="$line (disturbed)"
	fi
	echo "$line; others took $others cores"
done
if [ "$good" = 0 ]; then
	echo "every round was disturbed: what follows is of all rounds, and says little"
	kept=$(seq $round)
fi

flop=$(flop_per_token "$folder/$model/config.json" "$sequence")
summary
