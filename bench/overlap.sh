#!/bin/sh
# What is left of waiting where every transfer could hide behind computing: pipelines of 2 and 3 ranks, links and computing
# emulated, the measured step beside the simulator's, which overlaps perfectly; and what the thread that passes messages
# costs while it waits.
#
#   sh bench/overlap.sh
#
#   --steps 15          of every run; the first two are not counted
#   --rates "20 10 7"   Mbit/s of all links; "transfer" is what a tensor takes, as a share of the slowest stage's forward
#                       and backward
#   --seconds 8         of watching a rank that waits
#   --tcp yes           the same over real TCP too, between servers of testbed.sh (needs root): all that a server sends
#                       passes one card, and 12 KB of it (at 20 Mbit/s) at once
#   --build DIR         (default: build/ of this checkout)
#
# residual = (measured - simulated) / measured: of the median step of 16 micro-batches, with its fill and drain, its norm
# and its optimizer; "steady" of the 16 micro-batches that one of 32 has more; and of the step with plan.overlap=false, where
# a transfer passes only while its rank does not compute. The simulator overlaps perfectly. "pace" is how far any
# stage's computing was from the declared time, at most, over the steps of a run.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

steps=15 rates='20 10 7' seconds=8 tcp=no build=$root/build
take_options 'steps rates seconds tcp build' "$@"
[ "$steps" -ge 4 ] || fail "--steps: at least 4"

need_build
job=
trap '[ ! "$job" ] || kill "$job" 2> /dev/null || true; rm -rf "$work"' EXIT

# topology LAYERS MBIT GFLOPS...: writes $work/job.yaml, a rank for each of the rates
topology() {
	layers=$1 mbit=$2
	shift 2
	{
		echo "version: 1"
		echo "name: overlap"
		echo "nodes:"
		for gflops in "$@"; do
			n=$((${n:-0} + 1))
			echo "  - {name: n$n, compute: $gflops GFLOPS$([ "$links" = emulated ] || echo ", nic: card$n")}"
		done
		if [ "$links" = emulated ]; then
			echo "links: {default: {bandwidth: $mbit Mbit/s, latency: 2 ms}}"
			echo "emulate: {links: true, compute: true}"
		else	# 95 % of a rate carry payload
			echo "links: {default: {bandwidth: $(echo "$mbit" | awk '{ print 0.95 * $1 }') Mbit/s}}"
			echo "emulate: {compute: true}"
		fi
		echo "model: {path: $root/topologies/campus/model}"
		echo "lora: {rank: 8, alpha: 16, targets: all}"
		echo "data: {train: $root/topologies/campus/train.jsonl, sequence: 64}"
		echo "train: {batch: 32, micro_batch: 1, steps: $steps, learning_rate: 1e-3, checkpoint_every: 0}"
		echo "plan: {layers: [$layers]}"
	} > "$work/job.yaml"
	ranks=$# n=''
}

# train OPTIONS...: "measured simulated", seconds
train() {
	if [ "$links" = emulated ]; then
		set -- mpirun -np "$ranks" "$build/edgepipe" "$@"
	else
		set -- sh "$root/bench/testbed.sh" with "$ranks" --rate "$mbit" -- sh "$root/bench/testbed.sh" mpirun \
			"$build/edgepipe" "$@"
	fi
	"$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	grep warning "$work/log" >&2 || true
	simulated=$(json_numbers predicted_step_s < "$work/run/metrics.jsonl")
	measured=$(grep '"kind":"step"' "$work/run/metrics.jsonl" | sed 1,2d | json_numbers step_s | median)
	echo "$measured $simulated"
}

# step OVERLAP MICRO-BATCHES
step() {
	train train "$work/job.yaml" --out "$work/run" --overwrite --set "plan.overlap=$1" --set "train.batch=$2"
}

# per_stage FILE: the means of a stage's forward and backward, one line a stage
per_stage() {
	for key in forward_s backward_s; do
		json_numbers $key < "$1"
	done | awk -v ranks="$ranks" '{ s[(NR - 1) % ranks] += $1 } END { for (i = 0; i < ranks; i++) print 2 * s[i] * ranks / NR }'
}

# pace MICRO-BATCHES: percent, of the last run
pace() {
	grep '"kind":"step"' "$work/run/metrics.jsonl" | sed 1,2d > "$work/steps"
	per_stage "$work/run/plan.json" > "$work/declared"
	per_stage "$work/steps" | paste -d ' ' "$work/declared" - | awk -v count="$1" '
		{ d = $2 / count / $1 - 1; d = d < 0 ? -d : d; if (d > most) most = d } END { printf "%.1f", 100 * most }'
}

# share: of a tensor's transfer in the slowest stage's forward and backward, from the plan of the last run
share() {
	json_numbers forward_s < "$work/run/plan.json" > "$work/forward"
	json_numbers backward_s < "$work/run/plan.json" > "$work/backward"
	link=$(json_numbers seconds < "$work/run/plan.json" | sort -g | tail -n 1)
	paste -d ' ' "$work/forward" "$work/backward" |
		awk -v link="$link" '$1 + $2 > most { most = $1 + $2 } END { printf "%.2f", link / most }'
}

# residual LAYERS MBIT GFLOPS...
residual() {
	topology "$@"
	long=$(step true 32)
	paced=$(pace 32)
	short=$(step true 16)
	portion=$(share)
	without=$(step false 16)
	echo "$short $long $without" | awk -v links="$links" -v ranks="$ranks" -v rate="$2" -v portion="$portion" -v pace="$paced" '
		function part(measured, simulated) { return 100 * (measured - simulated) / measured }
		{ printf "%-8s %5d %8s %9s %8.0f ms %8.0f ms %8.1f %% %7.1f %% %8.0f ms %8.1f %% %5s %%\n", links, ranks, rate,
			portion, 1000 * $2, 1000 * $1, part($1, $2), part($3 - $1, $4 - $2), 1000 * $5, part($5, $6), pace }'
}

# all LINKS: every pipeline at every rate
all() {
	links=$1
	for rate in $rates; do
		residual 5,5 "$rate" 4 4
		residual 4,3,3 "$rate" 4 4 4
	done
}

# ticks PID: CPU time of a process's first thread, which passes its messages
ticks() {
	cut -d ' ' -f 14,15 "/proc/$1/task/$1/stat" | awk '{ print $1 + $2 }'
}

# rank_pid RANK: of the run that $job started
rank_pid() {
	for folder in /proc/[0-9]*; do
		if grep -qs "^PPid:[^0-9]*$job\$" "$folder/status" &&
			tr '\0' '\n' < "$folder/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1"; then
			echo "${folder#/proc/}"
		fi
	done
}

# The second of two ranks holds one block and computes a tenth of the time.
polling() {
	topology 9,1 10 3 20
	mpirun -np 2 "$build/edgepipe" train "$work/job.yaml" --out "$work/wait" --overwrite --set train.steps=100000 \
		> "$work/log" 2>&1 &
	job=$!
	for tries in $(seq 100); do
		if [ -e "$work/wait/metrics.jsonl" ] && grep -q '"step":1,' "$work/wait/metrics.jsonl"; then
			break
		fi
		if [ "$tries" = 100 ] || ! kill -0 $job; then
			cat "$work/log" >&2
			exit 1
		fi
		sleep 0.2
	done
	pid=$(rank_pid 1)
	[ "$pid" ] || fail "no rank 1 under mpirun" 70
	before="$(cut -d ' ' -f 1 /proc/uptime) $(ticks "$pid")"
	sleep "$seconds"
	echo "$before $(cut -d ' ' -f 1 /proc/uptime) $(ticks "$pid")" | awk -v hz="$(getconf CLK_TCK)" \
		'{ printf "messages of a rank that waits: %.1f %% of a core\n", 100 * ($4 - $2) / hz / ($3 - $1) }'
	grep '"kind":"step"' "$work/wait/metrics.jsonl" | tail -n 1 > "$work/last"
	echo "$(json_numbers step_s < "$work/last") $(json_numbers idle_s < "$work/last" | tail -n 1)" |
		awk '{ printf "it waited %.0f %% of the time\n", 100 * $2 / $1 }'
	kill $job
	wait $job 2> /dev/null || true
	job=
}

echo "$(cpu_name); steps of 16 micro-batches, the median of $((steps - 2))"
printf '%-8s %5s %8s %9s %11s %11s %10s %9s %11s %10s %7s\n' links ranks Mbit/s transfer simulated measured residual steady \
	'no overlap' residual pace
all emulated
polling
[ "$tcp" != yes ] || all tcp
