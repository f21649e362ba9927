#!/bin/sh
# Five servers with parts of a core each, over real TCP behind cards of 400 Mbit/s: tokens a second of the split that one
# makes by hand, 3/3/2/2/2 blocks in the order of the servers, and of the plan that edgepipe finds from its own measurements,
# in turns. GPT-2 of 124 million random weights in fp32, 8 micro-batches of 1 x 512 tokens.
#
#   sh bench/servers.sh
#
#   --clusters "40,40,40,40,40 20,30,40,50,60"   percent of a core of the five servers
#   --rate 400          Mbit/s of each card
#   --layers 3,3,2,2,2  by hand
#   --rounds 2          each measures everything once, so that a busy minute touches all
#   --steps 2           timed ones of a run; --drop 1: untimed before them
#   --peers DIR         another pipeline trainer in turns with these, with the split by hand: DIR/run_pipeline.sh as for
#                       wire.sh (default: EDGEPIPE_PEERS; PEER_PYTHON is its python); without it, edgepipe alone
#   --keep DIR          profiles, logs and run directories of all runs stay there
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
#
# The goal is a plan with 1.4 times the tokens/s of the split by hand. "predicted" is from the measured profile. Needs root
# and iproute2, ends with 77 where testbed.sh does. The servers together have the CPU of two cores and need them: on a machine
# that does something else, or has fewer, no number means anything. Takes about 12 minutes without the peer.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

clusters='40,40,40,40,40 20,30,40,50,60' rate=400 layers=3,3,2,2,2 rounds=2 steps=2 drop=1 peers=${EDGEPIPE_PEERS:-} keep=''
folder='' build=$root/build
take_options 'clusters rate layers rounds steps drop peers keep folder build' "$@"

need_build
[ -n "$folder" ] || folder=$work
[ -n "$keep" ] || keep=$work/keep
mkdir -p "$keep"
export XDG_CACHE_HOME="$work/cache"
status=0
sh "$root/bench/testbed.sh" with 5 --rate "$rate" --cpus "${clusters%% *}" -- true || status=$?
[ "$status" = 0 ] || exit "$status"
make_inputs gpt2 512 $((8 * (drop + steps)))

cat > "$work/job.yaml" << END
version: 1
name: servers
nodes:
  - {name: one, cores: 1}
  - {name: two, cores: 1}
  - {name: three, cores: 1}
  - {name: four, cores: 1}
  - {name: five, cores: 1}
model: {path: $folder/gpt2}
lora: {rank: 8, alpha: 16, targets: attention}
data: {train: $tokens, sequence: 512}
train: {batch: 8, micro_batch: 1, steps: $((drop + steps)), learning_rate: 1e-3, checkpoint_every: 0}
END

# on_servers CPUS NAME ARGUMENTS...: edgepipe on all of them; its log stays as NAME.log
on_servers() {
	cpus=$1 log=$keep/$2.log
	shift 2
	sh "$root/bench/testbed.sh" with 5 --rate "$rate" --cpus "$cpus" -- sh "$root/bench/testbed.sh" mpirun \
		"$build/edgepipe" "$@" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

# train CPUS KIND OPTIONS...: tokens/s of the timed steps go to $work/KIND.CPUS
train() {
	cluster=$1 kind=$2
	shift 2
	on_servers "$cluster" "$kind-$cluster-$round" train "$work/job.yaml" --out "$keep/$kind-$cluster-$round" --overwrite "$@"
	metrics=$keep/$kind-$cluster-$round/metrics.jsonl
	check_loss "$metrics"
	steps_of "$metrics" | sed "1,${drop}d" | cut -d ' ' -f 2 | median >> "$work/$kind.$cluster"
}

# other CPUS: of the peer, to $work/peer.CPUS
other() {
	PY=${PEER_PYTHON:-python3} "$peers/run_pipeline.sh" 5 --rate "$rate" --cpus "$1" -- --model gpt2 --schedule 1f1b \
		--split "$layers" --micro-batches 8 --batch 1 --seq 512 --dtype fp32 --threads 1 --steps "$steps" \
		--warmup "$drop" > "$work/peer.log" 2> "$work/log" || { cat "$work/log" >&2; fail "the peer did not run" 70; }
	tail -n 1 "$work/peer.log" | json_numbers tokens_per_s >> "$work/peer.$1"
}

# find_plan CPUS: measures, and says what the plan is
find_plan() {
	profile=$keep/profile-$1.json
	on_servers "$1" "profile-$1" profile "$work/job.yaml" -o "$profile"
	grep -A 6 'measured in' "$keep/profile-$1.log"
	"$build/edgepipe" plan "$work/job.yaml" --profile "$profile" --top 1 > "$work/plan"
	sed -n 's/, 0.00 % more$//; s/^rank 1: /plan: /p' "$work/plan"
	"$build/edgepipe" plan "$work/job.yaml" --profile "$profile" --set "plan.layers=[$layers]" -o "$work/hand.json" > "$work/log"
	"$build/edgepipe" plan "$work/job.yaml" --profile "$profile" -o "$work/found.json" > "$work/log"
}

# line CLUSTER KIND
line() {
	value=$(median < "$work/$2.$1")
	predicted=
	[ ! -f "$work/$2.json" ] || predicted=$(json_numbers simulated_step_s < "$work/$2.json" | awk '{ printf "%.0f", 4096 / $1 }')
	echo "$value" | awk -v cluster="$1" -v kind="$2" -v range="$(range < "$work/$2.$1")" -v predicted="$predicted" \
		'{ printf "%-16s %-6s %9.1f  %-15s %10s\n", cluster, kind, $1, range, predicted }'
}

measure() {
	for round in $(seq "$rounds"); do
		train "$1" hand --set "plan.layers=[$layers]"
		train "$1" found --profile "$profile"
		[ ! "$peers" ] || other "$1"
	done
}

if [ -n "$peers" ] && [ ! -x "$peers/run_pipeline.sh" ]; then
	echo "skipped: the peer: no '$peers/run_pipeline.sh'"
	peers=
fi
watch_start
echo "$(cpu_name); GPT-2 124M, 8 x 512 tokens a step, fp32, cards of $rate Mbit/s; $rounds rounds of $steps steps"
for cpus in $clusters; do
	of=$cpus
	find_plan "$of"
	measure "$of"
	printf '%-16s %-6s %9s  %-15s %10s\n' "cores, %" plan tokens/s range predicted
	line "$of" hand
	line "$of" found
	[ ! "$peers" ] || line "$of" peer
	echo "$(median < "$work/hand.$of") $(median < "$work/found.$of")" |
		awk '{ printf "found / by hand: %.2f (goal 1.4)\n\n", $2 / $1 }'
done
watch_end
echo "other programs used $other_cores cores"
