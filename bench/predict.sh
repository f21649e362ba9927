#!/bin/sh
# Does the prediction come true? The step that `edgepipe plan` simulates beside the step that `train --plan` takes, in three
# tables, and the memory that was estimated beside the peak of every run.
#
#   sh bench/predict.sh
#
#   a   emulated clusters: every file of topologies/ that can be trained, each as `exact`, `proportional` and `uniform` plan it
#   b   real computing: two ranks of one core each, fp32, a GPT-2 of six blocks, 2 + 4, 3 + 3 and 4 + 2 of them, over emulated
#       links; predicted from what `edgepipe profile` measured before
#   c   the five best plans of a cluster, all of them run: how much longer does the chosen one take than the fastest?
#
#   --only "a b c"      tables
#   --steps 8           of every run; the first is not counted
#   --topologies "campus ..."  of table a (default: all but fig5, whose clients are only simulated)
#   --solvers "exact proportional uniform"  of table a
#   --slowdown 2        of emulated clusters; doubled, up to three times, where this machine cannot hold their speeds
#   --rates "100 20"    Mbit/s of table b; table c takes the first
#   --top 5             plans of table c
#   --keep DIR          logs and run directories of all runs stay there
#   --folder DIR        keeps model and tokens there for the next time (default: a temporary one)
#   --build DIR         (default: build/ of this checkout)
#
# measured: the median of the steps; off by: measured / predicted - 1. Goals: 3 % in a, 8 % in b; in c the chosen plan within
# 3 % of the fastest; peak <= estimate <= 1.05 x peak in all. A row marked * was not held to its speeds. With the defaults it
# takes about ten minutes, and wants a machine that does nothing else.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

only='a b c' steps=8 topologies='' solvers='exact proportional uniform' slowdown=2 rates='100 20' top=5 keep='' folder=''
build=$root/build
take_options 'only steps topologies solvers slowdown rates top keep folder build' "$@"
[ "$steps" -ge 2 ] || fail "--steps: at least 2"
if [ ! "$topologies" ]; then
	for file in "$root"/topologies/*.yaml; do
		name=$(basename "$file" .yaml)
		[ "$name" = fig5 ] || topologies="$topologies $name"
	done
fi

need_build
[ -n "$folder" ] || folder=$work
export XDG_CACHE_HOME="$work/cache"
: > "$work/memory"

# -- one run ---------------------------------------------------------------------------------

# ranks_of FILE: how many nodes it has
ranks_of() {
	sed -n '/^nodes:/,/^[a-mo-z]/p' "$1" | grep -c '{name:'
}

# plan FILE OPTIONS...: $work/plan.json
plan() {
	"$build/edgepipe" plan "$@" -o "$work/plan.json" > "$work/plan.log" 2>&1 || { cat "$work/plan.log" >&2; exit 1; }
}

# train NAME FILE PLAN OPTIONS...: sets predicted and measured, seconds, and held: "*" where the speeds were not
train() {
	run=$1 file=$2 plan=$3
	shift 3
	mpirun -np "$(ranks_of "$file")" "$build/edgepipe" train "$file" --plan "$plan" --out "$work/run" --overwrite \
		--set "train.steps=$steps" --set train.validate_every=0 --set train.checkpoint_every=0 "$@" \
		> "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	predicted=$(json_numbers simulated_step_s < "$plan")
	measured=$(grep '"kind":"step"' "$work/run/metrics.jsonl" | sed 1d | json_numbers step_s | median)
	held=' '
	! grep -q 'too small to hold' "$work/log" || held='*'
	grep warning "$work/log" | grep -v 'too small to hold' >&2 || true
	sed -n 's/^[a-z]*  *\([^ ]*\)  *estimated \([0-9.]*\) \([A-Za-z]*\), peak \([0-9.]*\) \([A-Za-z]*\) .*/\1 \2 \3 \4 \5/p' \
		"$work/log" | sed "s|^|$run |" >> "$work/memory"
	[ -z "$keep" ] || {
		mkdir -p "$keep"
		rm -rf "${keep:?}/$run"
		cp -R "$work/run" "$keep/$run"
		cp "$work/log" "$keep/$run.log"
	}
}

# row TABLE COLUMNS...: of the last run
row() {
	table=$1
	shift
	echo "$predicted $measured" >> "$work/table.$table"
	echo "$predicted $measured" | awk -v what="$(printf "$format" "$@")" -v held="$held" \
		'{ printf "%s %9.4f s %9.4f s %+8.1f %%%s\n", what, $1, $2, 100 * ($2 / $1 - 1), held }'
}

# heads COLUMNS...
heads() {
	printf "$format %11s %11s %10s\n" "$@" predicted measured "off by"
}

# summary TABLE
summary() {
	awk -v table="$1" '{ d = 100 * ($2 / $1 - 1); s += d; d = d < 0 ? -d : d; a += d; if (d > worst) worst = d } END {
		printf "%s: %d runs, off by %.1f %% at worst, %.1f %% in the mean (with its sign %+.1f %%)\n\n", table, NR, worst,
			a / NR, s / NR }' "$work/table.$1"
}

# -- a: emulated clusters --------------------------------------------------------------------

# emulated NAME FILE PLAN: runs it at $slow, which grows until the machine holds it
emulated() {
	for times in 1 2 3 4; do
		train "$1" "$2" "$3" --set "emulate.slowdown=$slow"
		if [ "$held" = ' ' ] || [ "$times" = 4 ]; then
			break
		fi
		slow=$((2 * slow))
		again "$slow"
	done
}

table_a() {
	format='%-20s %-12s %8s'
	echo "a: emulated clusters"
	heads topology solver slowdown
	for name in $topologies; do
		for solver in $solvers; do
			slow=$slowdown file=$root/topologies/$name.yaml
			again() { plan "$file" --set "plan.solver=$solver" --set "emulate.slowdown=$1"; }
			again "$slow"
			emulated "a-$name-$solver" "$file" "$work/plan.json"
			row a "$name" "$solver" "$slow"
		done
	done
	summary a
}

# -- b: real computing -----------------------------------------------------------------------

# two RATE: $work/two-RATE.yaml and what is measured of it
two() {
	two=$work/two-$1.yaml profile=$work/two-$1.json
	[ ! -f "$profile" ] || return 0
	make_inputs small 128 $((32 * steps))
	cat > "$two" << END
version: 1
name: two
nodes:
  - {name: left, cores: 1}
  - {name: right, cores: 1}
links: {default: {bandwidth: $1 Mbit/s, latency: 2 ms}}
emulate: {links: true, compute: false}
model: {path: $folder/small}
lora: {rank: 8, alpha: 16, targets: all}
data: {train: $tokens, sequence: 128}
train: {batch: 32, steps: $steps, learning_rate: 1e-3, precision: fp32}
END
	mpirun -np 2 "$build/edgepipe" profile "$two" -o "$profile" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	! grep -q noisy "$work/log" || echo "the profile of $1 Mbit/s is noisy: predictions from it are as well"
	[ -z "$keep" ] || { mkdir -p "$keep"; cp "$profile" "$keep"; }
}

table_b() {
	format='%-11s %-7s'
	echo "b: two ranks of one core, real computing, from a profile"
	heads link blocks
	for rate in $rates; do
		two "$rate"
		for layers in 2,4 3,3 4,2; do
			plan "$two" --profile "$profile" --set "plan.layers=[$layers]" --set train.micro_batch=2
			train "b-$rate-$layers" "$two" "$work/plan.json" --profile "$profile" --set train.micro_batch=2
			row b "$rate Mbit/s" "$layers"
		done
	done
	summary b
}

# -- c: is the chosen one the fastest? -------------------------------------------------------

# best CLUSTER FILE OPTIONS...: runs the best plans
best() {
	cluster=$1 file=$2
	shift 2
	"$build/edgepipe" plan "$file" "$@" --top "$top" -o "$work/best.json" > "$work/ranks" 2>&1 || { cat "$work/ranks" >&2; exit 1; }
	: > "$work/steps"
	for rank in $(seq "$(grep -c '^plan [0-9]' "$work/ranks")"); do
		chosen=$work/best.json
		[ "$rank" = 1 ] || chosen=$chosen.$rank
		train "c-$cluster-$rank" "$file" "$chosen" "$@"
		row c "$cluster" "$rank"
		sed -n "s/^rank $rank: \(.*\): .* a step,.*/    \1/p" "$work/ranks"
		echo "$measured $held" >> "$work/steps"
	done
	awk -v cluster="$cluster" 'NR == 1 { first = $1; least = $1 } $1 < least { least = $1 } END { x = 100 * (first / least - 1)
		printf "%s: the chosen plan takes %.1f %% longer than the fastest of %d: %s\n", cluster, x, NR,
			x <= 3 ? "within 3 %" : "not within 3 %" }' "$work/steps"
}

table_c() {
	format='%-8s %5s'
	echo "c: the $top best plans"
	heads cluster rank
	best campus "$root/topologies/campus.yaml" --set "emulate.slowdown=$slowdown"
	two "${rates%% *}"
	best two "$two" --profile "$profile"
	summary c
}

# -- memory ----------------------------------------------------------------------------------

memory() {
	awk 'function bytes(x, unit) { return x * (unit == "GiB" ? 1048576 : unit == "MiB" ? 1024 : 1) }
		{ r = bytes($3, $4) / bytes($5, $6); s += r; if (NR == 1 || r < least) least = r; if (r > most) most = r
			if (r < 1 || r > 1.05) { n++; printf "  %-28s %-12s estimated %s %s, peak %s %s: %.3f\n", $1, $2, $3, $4, $5, $6, r } }
		END { if (NR) printf "memory: estimate / peak %.3f to %.3f, mean %.3f, of %d ranks; %d outside of 1 to 1.05\n", least,
			most, s / NR, NR, n }' "$work/memory"
}

watch_start
echo "$(cpu_name); median of $((steps - 1)) steps"
for table in $only; do
	case $table in a | b | c) "table_$table" ;; *) fail "--only: no table '$table'" ;; esac
done
memory
watch_end
echo "other programs used $other_cores cores"
