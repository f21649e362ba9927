#!/bin/sh
# Training speed and memory of one node beside other trainers, in rounds: tokens a second, the share of the machine's own
# matrix products, peak memory; and beside the least time that the step's products take (bench/shapes.c).
#
#   sh bench/train.sh gpt2 --threads 2
#   sh bench/train.sh gpt2 --precision bf16 --peers DIR --folder /tmp/models
#   sh bench/train.sh gpt2 --peer "mine=python peer.py --dtype fp32 --model gpt2" --peer "other=./other gpt2"
#
#   MODEL               tiny, gpt2, gpt2-medium, qwen2.5-0.5b: shapes of make_model, random weights
#   --precision fp32    or bf16
#   --sequence 512      tokens of a sequence
#   --batch 4           sequences of a step
#   --micro-batch 4     sequences of a micro-batch
#   --steps 4           timed, in every round; --drop 1: untimed before them
#   --threads N         (default: all CPUs)
#   --rounds 3          undisturbed ones: a run during which other processes took more than 0.1 cores is repeated, as long
#                       as there have been no more repeats than rounds; then its round does not count
#   --targets WORDS     of LoRA, as in a topology file (default: all products of attention that read its input, and for
#                       Qwen its output too, which is what the peers' `attn` means)
#   --peer NAME=COMMAND many times: a trainer that takes its turn in every round; the last line that it writes is a JSON
#                       object with tokens_per_s and peak_rss_bytes
#   --peers DIR         the peers "stock" and "tuned": DIR/single.py, compiled, as it is and with what its README preloads
#                       (default: EDGEPIPE_PEERS; PEER_PYTHON is its python)
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
#
# Medians of the rounds; memory is the largest that a whole process had resident, of all rounds. "of peak" counts as useful
# what flop_per_token of common.sh does. With both peers, a model of 124 million parameters takes five minutes on two quiet
# cores with --rounds 2 --steps 2; larger ones want --steps 1. The first time takes longer, as torch compiles.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

model='' precision=fp32 sequence=512 batch=4 micro=4 steps=4 drop=1 rounds=3 targets='' folder='' peer=''
peers=${EDGEPIPE_PEERS:-} build=$root/build threads=$(getconf _NPROCESSORS_ONLN)
take_options 'MODEL precision sequence batch micro-batch=micro steps drop threads rounds targets peer+ peers folder build' "$@"
[ -n "$model" ] || fail "which model? For example: sh bench/train.sh gpt2"
case $precision in fp32 | bf16) ;; *) fail "--precision is fp32 or bf16, not '$precision'" ;; esac
[ $((batch % micro)) = 0 ] || fail "--micro-batch $micro does not divide --batch $batch"
[ -n "$targets" ] || case $model in qwen*) targets='[q_proj, k_proj, v_proj, o_proj]' ;; *) targets=attention ;; esac

need_build
[ -n "$folder" ] || folder=$work
make_inputs "$model" "$sequence" $((batch * (drop + steps)))
flop=$(flop_per_token "$folder/$model/config.json" "$sequence")
cat > "$work/one.yaml" << END
version: 1
name: one
nodes:
  - {name: one, cores: $threads}
model: {path: $folder/$model}
lora: {rank: 8, alpha: 16, targets: $targets, dropout: 0.0}
data: {train: $tokens}
train: {batch: $batch, micro_batch: $micro, steps: $((drop + steps)), learning_rate: 1e-3, precision: $precision,
  checkpoint_every: 0}
END

# -- peers -----------------------------------------------------------------------------------

# add_peer NAME COMMAND: its command is the file NAME.peer
add_peer() {
	case $1 in '' | edgepipe | *[!a-z0-9-]*) fail "--peer: '$1' is no name of small letters, digits and -" ;; esac
	[ ! -f "$work/$1.peer" ] || fail "--peer: '$1' twice"
	printf '%s\n' "$2" > "$work/$1.peer"
	programs="$programs $1"
}

# single.py knows its targets by two words
add_single() {
	case $targets in
	all) words=all ;;
	attention | '[q_proj, k_proj, v_proj, o_proj]') words=attn ;;
	*) fail "--peers: LoRA on attention or all is what they know, not on $targets" ;;
	esac
	single="'${PEER_PYTHON:-python3}' '$peers/single.py' --model $model --dtype $precision --seq $sequence --batch $micro \
--accumulate $((batch / micro)) --targets $words --threads $threads --steps $steps --warmup $drop --compile"
	add_peer stock "$single"
	allocator=$(ls /usr/lib/*/libtcmalloc_minimal.so.4 2> /dev/null | head -n 1)
	if [ -z "$allocator" ] || ! cc -shared -fPIC -O2 "$peers/mkl_avx512.c" -o "$work/mkl_avx512.so" 2> "$work/log"; then
		echo "skipped: the tuned peer: no libtcmalloc_minimal.so.4, or no cc for $peers/mkl_avx512.c"
		return 0
	fi
	add_peer tuned "LD_PRELOAD='$work/mkl_avx512.so:$allocator' $single"
}

programs=edgepipe
if [ -n "$peers" ]; then
	[ -f "$peers/single.py" ] || fail "no '$peers/single.py' (--peers DIR)" 66
	add_single
fi
printf '%s\n' "$peer" > "$work/given"
while read -r line; do
	case $line in
	'') ;;
	*=*) add_peer "${line%%=*}" "${line#*=}" ;;
	*) fail "--peer NAME=COMMAND, not '$line'" ;;
	esac
done < "$work/given"

# -- one run ---------------------------------------------------------------------------------

# own_run N: tokens/s to edgepipe.N, peak memory to edgepipe.N.memory, its estimate to estimate.N
own_run() {
	"$build/edgepipe" train "$work/one.yaml" --out "$work/run" --overwrite > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; exit 1; }
	check_loss "$work/run/metrics.jsonl"
	steps_of "$work/run/metrics.jsonl" | sed "1,${drop}d" | cut -d ' ' -f 2 | median > "$work/edgepipe.$1"
	steps_of "$work/run/metrics.jsonl" | tail -n 1 | cut -d ' ' -f 3 > "$work/edgepipe.$1.memory"
	json_numbers memory_bytes < "$work/run/plan.json" > "$work/estimate.$1"
}

# peer_run NAME N: the same of a peer
peer_run() {
	sh "$work/$1.peer" > "$work/log" 2> "$work/errors" || { cat "$work/errors" >&2; fail "$1 did not run" 70; }
	tail -n 1 "$work/log" > "$work/last"
	json_numbers tokens_per_s < "$work/last" > "$work/$1.$2"
	json_numbers peak_rss_bytes < "$work/last" > "$work/$1.$2.memory"
	[ -s "$work/$1.$2" ] || fail "the last line of $1 is no JSON object with tokens_per_s" 65
	counted=$(json_numbers flop_per_token < "$work/last")
	[ "${counted:-$flop}" = "$flop" ] || fail "$1 counts $counted FLOPs a token, not $flop" 65
}

# run NAME N: until nobody disturbs it; fails where too often somebody did
run() {
	while :; do
		watch_start
		if [ "$1" = edgepipe ]; then own_run "$2"; else peer_run "$1" "$2"; fi
		watch_end
		echo "round $2: $1 $(cat "$work/$1.$2") tokens/s; others took $other_cores cores"
		! is_quiet "$other_cores" || return 0
		[ "$repeats" -lt "$rounds" ] || return 1
		repeats=$((repeats + 1))
	done
}

# bound: this machine's peak, and the products of the step, each at its best; more lines of the file bound
bound() {
	"$build/bench/shapes" "$folder/$model" --precision "$precision" --rows $((micro * sequence)) --threads "$threads" \
		--rounds 1 >> "$work/bound"
}

# -- results ---------------------------------------------------------------------------------

# each NAME SUFFIX: a value of every round that counts
each() {
	for n in $kept; do
		cat "$work/$1.$n$2"
	done
}

largest() {
	sort -n | tail -n 1
}

# least_step: seconds of the products of a step, the best of all times that they were measured; nothing without them
least_step() {
	awk -v many=$((batch / micro)) '
		$NF ~ /^[0-9.]+$/ && $1 != "square" {
			name = $1 " " $2
			for (i = 3; i <= 6; i++) name = name " " $i
			if (!(name in least) || $NF < least[name]) least[name] = $NF
		}
		END { for (name in least) s += least[name]; if (s) print s * many }' "$work/bound"
}

# row NAME
row() {
	bytes=$(each "$1" .memory | largest)
	echo "$(each "$1" '' | median) ${bytes:-0} $flop ${gemm:-0}" |
		awk -v name="$1" -v range="$(each "$1" '' | range)" '{
			printf "%-10s %10.1f %19s %8.1f %9s %11.0f MiB\n", name, $1, range, $1 * $3 / 1e9,
				($4 ? sprintf("%.0f %%", 100 * $1 * $3 / 1e9 / $4) : "-"), $2 / 1048576 }'
}

# goal NAME: what edgepipe over it is held to
goal() {
	case $precision-$1 in
	fp32-stock) echo " (goal: 2.3)" ;;
	fp32-tuned) echo " (goal: 1.08)" ;;
	bf16-stock) echo " (goal: 1.75)" ;;
	bf16-tuned) echo " (goal: 1.3)" ;;
	esac
}

# against NAME: ratios round by round
against() {
	for n in $kept; do
		paste -d ' ' "$work/edgepipe.$n" "$work/$1.$n" | awk '{ printf "%.3f\n", $1 / $2 }'
	done > "$work/ratios"
	memory=$(echo "$(each edgepipe .memory | largest) $(each "$1" .memory | largest)" | awk '{ if ($2) printf "%.2f", $1 / $2 }')
	echo "over $1: $(median < "$work/ratios" | awk '{ printf "%.2f", $1 }') times its tokens/s$(goal "$1")," \
		"$(range < "$work/ratios") round by round; ${memory:-?} of its memory (goal: at most 0.4)"
}

summary() {
	gemm=$(sed -n 's/^peak.* \([0-9.]*\) GF.*/\1/p' "$work/bound" | largest)
	echo
	echo "peak       ${gemm:-no} GF/s: the best product of OpenBLAS and oneDNN in $precision"
	printf '%-10s %10s %19s %8s %9s %15s\n' '' tokens/s range GF/s 'of peak' 'peak memory'
	for name in $programs; do
		row "$name"
	done
	echo
	echo "$(each estimate '' | largest) $(each edgepipe .memory | largest)" | awk '{
		printf "memory     estimated %.0f MiB, %.3f of the peak (goal: 1 to 1.05)\n", $1 / 1048576, $1 / $2 }'
	least=$(least_step)
	[ -z "$least" ] || echo "$least $(each edgepipe '' | median)" | awk -v tokens=$((batch * sequence)) '{
		printf "bound      the products alone take %.3f s a step; it takes %.3f s, %.2f of that (goal: at most 1.18)\n",
			$1, tokens / $2, tokens / $2 / $1 }'
	for name in $programs; do
		[ "$name" = edgepipe ] || against "$name"
	done
}

echo "$(cpu_name), $(getconf _NPROCESSORS_ONLN) CPUs; $model, $targets, $batch x $sequence tokens a step," \
	"micro-batches of $micro, $threads threads, $precision"
good=0 round=0 kept='' repeats=0
bound
while [ "$good" -lt "$rounds" ] && [ "$round" -lt $((2 * rounds)) ]; do
	round=$((round + 1))
	disturbed=
	for name in $programs; do
		run "$name" $round || disturbed=yes
	done
	if [ ! "$disturbed" ]; then
		good=$((good + 1))
		kept="$kept $round"
	fi
done
bound
if [ "$good" = 0 ]; then
	echo "every round was disturbed: what follows is of all rounds, and says little"
	kept=$(seq $round)
fi
summary
