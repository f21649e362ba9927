#!/bin/sh
# How many hops? By running: clients and 1 to 5 servers in a chain train a small model in the proportions of a published
# setting, links and computing emulated; the measured step beside the predicted one, and the hours that 264 million tokens
# would take at this step.
#
#   sh bench/hops.sh
#
#   --hops "1 2 3 4 5"     servers in the chain
#   --codecs "none int8"   of all links
#   --efficiency 0.4       of their rate that clients and servers achieve
#   --micro-batches 20     of one sequence, a step
#   --steps 6              of every run; the first is not counted
#   --slowdown 2           of all times, so that a machine of two cores can play six nodes; the hours are without it
#   --folder DIR           keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR            (default: build/ of this checkout)
#
# The setting: GPT-2 medium, LoRA, sequences of 1024 tokens; five clients of 3.56 TFLOPS with two blocks each, 70 Mbit/s up
# and 300 down; servers of 35.6 TFLOPS with the other 22 blocks and the head, 400 Mbit/s between them; 5 ms everywhere.
# There a sequence takes 7.2 ms on the clients and 45.7 ms on the servers, over the efficiency, and its activations take
# 95.9 ms up, 22.4 down and 83.9 between servers. Here it takes the same times: a model of the same proportions, a 2000th
# of the computing and a 512th of the bytes, on nodes and links that much slower. The five clients are one node with the
# sum of their rates, so that a step is shorter by about four transfers up and down, with which its pipeline there fills and
# drains. Blocks are whole, as many on each server as make it take the same time as the others, the head included. With
# the defaults it takes about six minutes.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

hops='1 2 3 4 5' codecs='none int8' efficiency=0.4 micro=20 steps=6 slowdown=2 folder='' build=$root/build
take_options 'hops codecs efficiency micro-batches=micro steps slowdown folder build' "$@"
[ "$steps" -ge 2 ] || fail "--steps: at least 2"
need_build
[ -n "$folder" ] || folder=$work
make_inputs tiny-medium 32 $((micro * steps))

# scaled MBIT: that rate of the setting where a tensor has 8224 bytes rather than 4 MiB
scaled() {
	echo "$1" | awk '{ printf "%.6f Mbit/s", $1 * 8224 / 4194304 }'
}

# layers HOPS: "13, 9": blocks of the servers, where the head takes as long as 3.3 blocks
layers() {
	echo "$1" | awk '{
		for (i = 1; i <= $1; i++) {
			end = i < $1 ? int(25.3 * i / $1 + 0.5) : 22
			printf "%s%d", (i > 1 ? ", " : ""), end - start
			start = end
		} }'
}

# topology HOPS CODEC CLIENTS_GFLOPS SERVER_GFLOPS: writes $work/job.yaml
topology() {
	{
		echo "version: 1"
		echo "name: hops"
		echo "nodes:"
		echo "  - {name: clients, compute: $3 GFLOPS}"
		for i in $(seq "$1"); do
			echo "  - {name: server-$i, compute: $4 GFLOPS}"
		done
		echo "links:"
		echo "  default: {bandwidth: $(scaled 400), latency: 5 ms, codec: $2}"
		echo "  between:"
		echo "    - {from: clients, to: server-1, bandwidth: $(scaled 350)}"
		echo "    - {from: server-1, to: clients, bandwidth: $(scaled 1500)}"
		echo "emulate: {links: true, compute: true, slowdown: $slowdown}"
		echo "model: {path: $folder/tiny-medium}"
		echo "lora: {rank: 8, alpha: 16, targets: attention}"
		echo "data: {train: $tokens, sequence: 32}"
		echo "train: {batch: $micro, micro_batch: 1, steps: $steps, learning_rate: 1e-3, checkpoint_every: 0}"
		echo "plan: {layers: [2, $(layers "$1")]}"
	} > "$work/job.yaml"
}

# Sets clients and server: GFLOPS with which a sequence takes the times above, from those that a GFLOPS would take.
find_rates() {
	topology 1 none 1 1
	"$build/edgepipe" plan "$work/job.yaml" -o "$work/plan.json" > "$work/log"
	json_numbers forward_s < "$work/plan.json" > "$work/forward"
	json_numbers backward_s < "$work/plan.json" | paste -d ' ' "$work/forward" - |
		awk -v e="$efficiency" -v slowdown="$slowdown" \
			'{ print ($1 + $2) / slowdown / (NR == 1 ? 0.0072 : 0.0457) * e }' > "$work/rates"
	clients=$(sed -n 1p "$work/rates")
	server=$(sed -n 2p "$work/rates")
}

# measure HOPS CODEC: "predicted measured", seconds
measure() {
	topology "$1" "$2" "$clients" "$server"
	mpirun -np $(($1 + 1)) "$build/edgepipe" train "$work/job.yaml" --out "$work/run" --overwrite > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; exit 1; }
	grep warning "$work/log" >&2 || true
	predicted=$(json_numbers predicted_step_s < "$work/run/metrics.jsonl")
	measured=$(grep '"kind":"step"' "$work/run/metrics.jsonl" | sed 1d | json_numbers step_s | median)
	echo "$predicted $measured"
}

find_rates
echo "$(cpu_name); $micro micro-batches a step, efficiency $efficiency, slowdown $slowdown, median of $((steps - 1)) steps"
printf '%-5s %4s %-16s %12s %12s %10s %10s\n' codec hops blocks predicted measured error hours
for codec in $codecs; do
	: > "$work/steps"
	for h in $hops; do
		echo "$h $(measure "$h" "$codec")" | tee -a "$work/steps" |
			awk -v codec="$codec" -v blocks="2, $(layers "$h")" -v m="$micro" -v slowdown="$slowdown" '{
				printf "%-5s %4d %-16s %9.3f s %9.3f s %8.1f %% %10.2f\n", codec, $1, blocks, $2, $3,
					100 * ($3 / $2 - 1), $3 / slowdown * 264e6 / 1024 / m / 3600 }'
	done
	echo "$codec: best $(sort -g -k 2 "$work/steps" | head -n 1 | cut -d ' ' -f 1) predicted, $(sort -g -k 3 "$work/steps" |
		head -n 1 | cut -d ' ' -f 1) measured"
done
