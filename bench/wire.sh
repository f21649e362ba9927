#!/bin/sh
# Two servers of one core each with a link of a given rate between them, over real TCP: tokens a second of edgepipe, and of
# another pipeline trainer in turns with it, and what each loses against its own run without a limit. GPT-2 of 124 million
# random weights in fp32, 8 + 4 blocks, 8 micro-batches of 1 x 512 tokens.
#
#   sh bench/wire.sh --peers DIR
#
#   --peers DIR         with run_pipeline.sh N [--rate MBIT] --cpus P,P -- OPTIONS, whose last line is a JSON object with
#                       tokens_per_s (default: EDGEPIPE_PEERS; PEER_PYTHON is its python); without it, edgepipe alone
#   --rates "max 400 100 20 5"   Mbit/s; max comes first
#   --codecs "bf16 int8"         at the rates below 50, beside none, which is measured at all rates
#   --rounds 2          each measures everything once, so that a busy minute touches all
#   --steps 1           timed ones of a run; --drop 1: untimed before them
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
#
# "loss" is 1 - tokens/s / tokens/s without a limit, medians of the rounds. "bound" is the least loss that any schedule has
# with these links, from the computing times of the run without a limit: no step is shorter than a stage's own work and
# what must come before and after it, nor than a direction of the link needs for its tensors; 95 % of a rate carry payload. "busy" is the
# share of a step that the busiest stage computes: a loss without a fall there is the machine's, not the wire's.
# Needs root and iproute2, ends with 77 where testbed.sh does. Takes about 12 minutes a round with the
# peer on two quiet cores: a step is 4096 tokens, and there are 14 runs.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

peers=${EDGEPIPE_PEERS:-} rates='max 400 100 20 5' codecs='bf16 int8' rounds=2 steps=1 drop=1 folder='' build=$root/build
take_options 'peers rates codecs rounds steps drop folder build' "$@"
case $rates in max*) ;; *) fail "--rates: max must come first, the others are compared with it" ;; esac

need_build
[ -n "$folder" ] || folder=$work
status=0
sh "$root/bench/testbed.sh" with 2 --rate 100 --cpus 100,100 -- true || status=$?
[ "$status" = 0 ] || exit "$status"
make_inputs gpt2 512 $((8 * (drop + steps)))

cat > "$work/job.yaml" << END
version: 1
name: wire
nodes:
  - {name: one, cores: 1, compute: 120 GFLOPS}
  - {name: two, cores: 1, compute: 120 GFLOPS}
model: {path: $folder/gpt2}
lora: {rank: 8, alpha: 16, targets: attention}
data: {train: $tokens}
train: {batch: 8, micro_batch: 1, steps: $((drop + steps)), learning_rate: 1e-3, checkpoint_every: 0}
plan: {layers: [8, 4]}
END

# limit RATE: options of a testbed
limit() {
	[ "$1" = max ] || printf '%s ' --rate "$1"
	echo --cpus 100,100
}

# declared RATE: what the topology file says of it
declared() {
	[ "$1" = max ] && echo unlimited || echo "$1 Mbit/s"
}

# own RATE CODEC: tokens/s of every timed step go to $work/edgepipe.CODEC.RATE
own() {
	# shellcheck disable=SC2046
	sh "$root/bench/testbed.sh" with 2 $(limit "$1") -- sh "$root/bench/testbed.sh" mpirun \
		"$build/edgepipe" train "$work/job.yaml" --out "$work/run" --overwrite --set "links.default.codec=$2" \
		--set "links.default.bandwidth=$(declared "$1")" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	check_loss "$work/run/metrics.jsonl"
	steps_of "$work/run/metrics.jsonl" | sed "1,${drop}d" | cut -d ' ' -f 2 | median >> "$work/edgepipe.$2.$1"
	busy >> "$work/busy.$2.$1"
	[ "$1" != max ] || computing
}

# busy: percent of a step that the busiest stage of the last run computes
busy() {
	grep '"kind":"step"' "$work/run/metrics.jsonl" | sed "1,${drop}d" | while read -r line; do
		# shellcheck disable=SC2046
		echo $(echo "$line" | json_numbers step_s) $(echo "$line" | json_numbers forward_s) \
			$(echo "$line" | json_numbers backward_s)
	done | awk '{ a = $2 + $4; b = $3 + $5; print 100 * (a > b ? a : b) / $1 }' | median
}

# computing: of the run without a limit, "f0 f1 b0 b1": seconds of a micro-batch; a line a step goes to $work/computing
computing() {
	grep '"kind":"step"' "$work/run/metrics.jsonl" | sed "1,${drop}d" | while read -r line; do
		# shellcheck disable=SC2046
		echo $(echo "$line" | json_numbers forward_s) $(echo "$line" | json_numbers backward_s)
	done | awk '{ print $1 / 8, $2 / 8, $3 / 8, $4 / 8 }' >> "$work/computing"
}

# other RATE: of the peer, to $work/peer.none.RATE
other() {
	# shellcheck disable=SC2046
	PY=${PEER_PYTHON:-python3} "$peers/run_pipeline.sh" 2 $(limit "$1") -- --model gpt2 --schedule 1f1b --split 8,4 \
		--micro-batches 8 --batch 1 --seq 512 --dtype fp32 --threads 1 --steps "$steps" --warmup "$drop" \
		> "$work/peer.log" 2> "$work/log" || { cat "$work/log" >&2; return 1; }
	tail -n 1 "$work/peer.log" | json_numbers tokens_per_s >> "$work/peer.none.$1"
}

slow() {
	[ "$1" != max ] && [ "$1" -lt 50 ]
}

measure() {
	for rate in $rates; do
		own "$rate" none
		[ ! "$peers" ] || other "$rate" || fail "the peer did not run" 70
		for codec in $codecs; do
			! slow "$rate" || own "$rate" "$codec"
		done
	done
}

# bound RATE CODEC: loss in percent, from the medians of "computing"
bound() {
	case $2 in none) bits=32 ;; bf16) bits=16 ;; int8) bits=8.25 ;; *) echo -; return ;; esac
	for column in 1 2 3 4; do
		cut -d ' ' -f $column "$work/computing" | median
	done | tr '\n' ' ' | awk -v rate="$1" -v bits="$bits" '
		function most(a, b) { return a > b ? a : b }
		function step(l, m) {
			m = most(8 * ($1 + $3), 8 * $1 + $2 + $4 + 2 * l + $3)		# the first stage
			m = most(m, $1 + $3 + 2 * l + 8 * ($2 + $4))			# the second
			return most(m, $1 + 8 * l + $2 + $4 + l + $3)			# a direction of the link
		}
		{ l = rate == "max" ? 0 : 512 * 768 * bits / (rate * 0.95e6); printf "%.1f %%\n", 100 * (1 - step(0) / step(l)) }'
}

# report PROGRAM CODEC RATE
report() {
	[ -f "$work/$1.$2.$3" ] || return 0
	value=$(median < "$work/$1.$2.$3")
	full=$(median < "$work/$1.none.max")
	limit=$(bound "$3" "$2")
	busy=''
	[ ! -f "$work/busy.$2.$3" ] || [ "$1" = peer ] || busy="$(median < "$work/busy.$2.$3" | awk '{ printf "%.1f", $1 }') %"
	echo "$value $full" | awk -v program="$1" -v codec="$2" -v rate="$3" -v range="$(range < "$work/$1.$2.$3")" \
		-v limit="$limit" -v busy="$busy" '{ printf "%-9s %-5s %6s %10.1f  %-15s %6.1f %% %9s %8s\n", program, codec,
			rate, $1, range, 100 * (1 - $1 / $2), program == "peer" ? "" : limit, busy }'
}

if [ -n "$peers" ] && [ ! -x "$peers/run_pipeline.sh" ]; then
	echo "skipped: the peer: no '$peers/run_pipeline.sh'"
	peers=
elif [ -z "$peers" ]; then
	echo "skipped: the peer: no --peers DIR or EDGEPIPE_PEERS"
fi
started=$(date +%s)
for round in $(seq "$rounds"); do
	measure
	echo "round $round of $rounds: $(($(date +%s) - started)) s" >&2
done
echo "$(cpu_name); GPT-2 124M, 8 + 4 blocks, 8 x 512 tokens a step, fp32, $rounds rounds of $steps steps"
printf '%-9s %-5s %6s %10s  %-15s %8s %9s %8s\n' program codec Mbit/s tokens/s range loss bound busy
for rate in $rates; do
	for codec in none $codecs; do
		report edgepipe "$codec" "$rate"
	done
	report peer none "$rate"
done
echo "computing a micro-batch: forward $(cut -d ' ' -f 1 "$work/computing" | median) and $(cut -d ' ' -f 2 \
	"$work/computing" | median) s, backward $(cut -d ' ' -f 3 "$work/computing" | median) and $(cut -d ' ' -f 4 \
	"$work/computing" | median) s"
