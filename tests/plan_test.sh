#!/bin/sh
# edgepipe plan: the plan that train would make, from config.json alone, without MPI; what it explains; what it refuses.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/plan_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
source=$(cd "$EDGEPIPE_SOURCE" && pwd)

# The model without its weights: a config.json is enough.
mkdir "$work/model"
cp "$source/topologies/campus/model/config.json" "$work/model/"
sed "s|campus/model|$work/model|; s|campus/|$source/topologies/campus/|g" "$source/topologies/campus.yaml" > "$work/campus.yaml"
(cd / && "$EDGEPIPE" plan "$work/campus.yaml" -o "$work/best.json" --explain) > "$work/stdout" || fail "the default: exit $?"
grep -q 'plan: exact, eager, 16 micro-batches' "$work/stdout" || fail "the default is not exact"
grep -q 'predict 0.173 s a step.* no plan less than 0.158 s; bottleneck: stage' "$work/stdout" || fail "another prediction or bound"
grep -q 'left out: music (with it a step takes .* % more)' "$work/stdout" || fail "it is not said why a node is left out"
"$EDGEPIPE" plan "$work/campus.yaml" --set links.default.latency=50ms > "$work/long" || fail "50 ms: exit $?"
grep -q 'left out: workshop (with it .* % more (micro-batches of 2))' "$work/long" ||
	fail "another size of micro-batch is not tried with a node"
"$EDGEPIPE" plan "$work/campus.yaml" --set links.default.latency=50ms --set train.micro_batch=4 > "$work/long" || fail "size 4: exit $?"
! grep -q 'left out.*(micro-batches of' "$work/long" || fail "a size that was asked for is not kept"
for other in search bottleneck proportional uniform; do
	grep -q "^solver $other: .* s a step" "$work/stdout" || fail "the explanation does not name $other"
done
for key in plan_bound_s lower_bound_s gap model_step_s model_minimum_s model_gap; do
	grep -q "\"$key\":[0-9]" "$work/best.json" || fail "$key is not in the file"
done

# On every cluster: no other solver has a shorter step, none is below the bound of all plans, and J is proved.
for file in "$source"/topologies/*.yaml; do
	case $file in */fig5.yaml) continue ;; esac
	for solver in exact search bottleneck proportional uniform; do
		"$EDGEPIPE" plan "$file" --set plan.solver=$solver -o "$work/solver.json" > /dev/null || fail "$file, $solver: exit $?"
		sed -n "s/.*\"simulated_step_s\":\([^,]*\),.*\"lower_bound_s\":\([^,]*\),\"gap\":\([^,]*\),.*\"model_gap\":\([^}]*\)}.*/$solver \1 \2 \4/p" \
			"$work/solver.json"
	done | awk -v file="$file" '
		$1 == "exact" { best = $2; bound = $3; if ($4 != 0 || $3 > $2) { print file ": no proof: " $0; bad = 1 } }
		$2 < best * (1 - 1e-9) || $2 < bound { print file ": " $0 " against exact " best; bad = 1 }
		END { exit bad || NR != 5 }' || fail "$file: the planner is not the best"
done

(cd / && "$EDGEPIPE" plan "$work/campus.yaml" --set plan.solver=proportional -o "$work/plan.json" --explain) > "$work/stdout" || fail "exit $?"
grep -q 'plan: proportional, eager, 16 micro-batches' "$work/stdout" || fail "no plan was printed"
grep -q 'predict 0.252 s a step' "$work/stdout" || fail "another prediction than train's"
grep -q 'bottleneck: stage 3 (music)$' "$work/stdout" || fail "the bottleneck is not named"
grep -q 'solver uniform: ' "$work/stdout" || fail "the other solver is not named"
grep -q 'music computing twice as fast' "$work/stdout" || fail "what would help is not named"

# the same stages as train's plan.json; memory is an estimate of its own
if command -v mpirun > /dev/null; then
	. "$source/launch/env.sh"
	XDG_CACHE_HOME="$work/cache" timeout 60 mpirun -np 5 "$EDGEPIPE" train "$source/topologies/campus.yaml" --out "$work/run" \
		--set train.steps=1 --set train.micro_batch=1 > "$work/log" 2>&1 || { cat "$work/log"; fail "train"; }
	grep -q 'plan: exact, eager, 16 micro-batches' "$work/log" || fail "train does not plan with exact"
	(cd / && "$EDGEPIPE" plan "$work/campus.yaml" --set train.micro_batch=1 -o "$work/alone.json") > /dev/null ||
		fail "plan: exit $?"
	for file in alone.json run/plan.json; do
		sed -e 's/"memory_bytes":[^,]*,//; s/"memory_limit_bytes":[^,]*,//' "$work/$file" > "$work/$(dirname "$file")/stages"
	done
	cmp "$work/stages" "$work/run/stages" || fail "train plans otherwise"
else
	echo "skipped: train's plan: no mpirun"
fi

# A plan that is read again is the same; one that was edited by hand is taken, and trains to the same bytes.
(cd / && "$EDGEPIPE" plan "$work/campus.yaml" --plan "$work/plan.json" -o "$work/again.json") > "$work/stdout" || fail "--plan: exit $?"
cmp "$work/plan.json" "$work/again.json" || fail "another plan after reading it again"
# edited SED-COMMAND: $work/edited.json
edited() {
	sed -e "$1" "$work/plan.json" > "$work/edited.json"
	! cmp -s "$work/plan.json" "$work/edited.json" || fail "'$1' changes nothing"
}
edited 's/"first_block":0,"last_block":2,/"first_block":0,"last_block":4,/; s/"first_block":3,"last_block":6,/"first_block":5,"last_block":6,/; s/"library"/"swap"/; s/"physics"/"library"/; s/"swap"/"physics"/'
(cd / && "$EDGEPIPE" plan "$work/campus.yaml" --plan "$work/edited.json") > "$work/stdout" || fail "an edited plan: exit $?"
grep -q ' 0  physics  *emb 0-4' "$work/stdout" && grep -q ' 1  library  *5-6' "$work/stdout" || fail "not the edited plan"
if command -v mpirun > /dev/null; then
	timeout 60 mpirun -np 5 "$EDGEPIPE" train "$source/topologies/campus.yaml" --out "$work/other" --set train.steps=1 \
		--plan "$work/edited.json" > "$work/log" 2>&1 || { cat "$work/log"; fail "train --plan"; }
	cmp "$work/run/adapter/adapter_model.safetensors" "$work/other/adapter/adapter_model.safetensors" || fail "other bytes"
	grep -q '"nodes": *\["physics"\], *"first_block": *0, *"last_block": *4' "$work/other/plan.json" || fail "train's plan is another"
fi

# A batch that could be cut into very many micro-batches takes no longer to plan.
timeout 20 "$EDGEPIPE" plan "$work/campus.yaml" --set train.batch=1048576 > "$work/stdout" || fail "a large batch: exit $?"
grep -q 'eager, 2048 micro-batches of 512 ' "$work/stdout" || fail "a large batch is planned otherwise"

# The next best plans: files of ascending steps, all different, each taken as a plan.
"$EDGEPIPE" plan "$work/campus.yaml" --set plan.solver=exact --top 4 -o "$work/best.json" > "$work/stdout" 2> "$work/stderr" || fail "--top: exit $?"
[ "$(grep -c '^plan [1-4]: .* a step, [0-9.]* % more; .*/best.json' "$work/stdout")" = 4 ] || fail "not four plans"
for file in best.json best.json.2 best.json.3 best.json.4; do
	grep -o '"simulated_step_s": *[0-9.e-]*' "$work/$file" | sed 's/.*: *//' >> "$work/steps"
	"$EDGEPIPE" plan "$work/campus.yaml" --plan "$work/$file" -o "$work/taken.json" > /dev/null || fail "$file is not taken"
	grep -o '"nodes.*"last_block":[0-9]*' "$work/taken.json" > "$work/places"
	grep -o '"nodes.*"last_block":[0-9]*' "$work/$file" | cmp - "$work/places" || fail "$file is taken as another plan"
	cksum < "$work/places" >> "$work/different"
done
[ ! -s "$work/stderr" ] || fail "--top warns of nothing"
"$EDGEPIPE" plan "$work/campus.yaml" --top 3 -o "$work/best.json" 2>&1 > /dev/null | grep -q "best.json.4' is not of this list" ||
	fail "no word of an older file"
[ ! -e "$work/best.json.5" ] || fail "more files than asked for"
[ "$(wc -l < "$work/steps")" = 4 ] && sort -g -c "$work/steps" || fail "the steps do not ascend"
[ "$(sort -u "$work/different" | wc -l)" = 4 ] || fail "plans of the same places"

# A picture of the step: 5 stages of 16 forwards and backwards, and 4 cuts with as many messages; a name cannot break it.
sed 's|name: library,|name: "<b>\&\\"x",|; s|\[library,|["<b>\&\\"x",|' "$work/campus.yaml" > "$work/hostile.yaml"
"$EDGEPIPE" plan "$work/hostile.yaml" --set plan.solver=proportional --svg "$work/step.svg" > /dev/null || fail "--svg: exit $?"
[ "$(grep -c '<rect.*class="forward"/>' "$work/step.svg")" = 81 ] || fail "another number of forwards"
[ "$(grep -c '<rect.*class="backward"/>' "$work/step.svg")" = 81 ] || fail "another number of backwards"
[ "$(grep -c '<rect.*sent"/>' "$work/step.svg")" = 130 ] || fail "another number of messages"
grep -q '&lt;b&gt;&amp;&quot;x' "$work/step.svg" || fail "the name is not escaped"
if command -v python3 > /dev/null; then
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$work/step.svg" || fail "no XML"
else
	echo "skipped: reading the picture with another program: no python3"
fi

# A given plan is called that, beside the planner's own; what is asked beside it and does not count is said.
"$EDGEPIPE" plan "$work/campus.yaml" --plan "$work/plan.json" --explain --set plan.schedule=gpipe --set plan.solver=uniform \
	> "$work/stdout" 2> "$work/stderr" || fail "--plan --explain: exit $?"
grep -q '^plan: given, eager' "$work/stdout" || fail "the given plan is not called that"
grep -q "^the planner's own: physics .* 0.173 s a step, 31.* % less" "$work/stdout" || fail "not the planner's own"
! grep -q '^runner-up' "$work/stdout" || fail "a runner-up of a given plan"
[ "$(grep -c 'warning: --set plan.s.*decides that' "$work/stderr")" = 2 ] || fail "--set beside --plan is not warned of"

# A codec that a link does not have is warned of once for the link; the table names those that links have.
sed 's/"codec":"none"/"codec":"int8"/' "$work/plan.json" > "$work/codecs.json"
"$EDGEPIPE" plan "$work/campus.yaml" --plan "$work/codecs.json" > "$work/stdout" 2> "$work/stderr" || fail "codecs: exit $?"
[ "$(grep -c 'warning: .*codec int8 for the link .*says none' "$work/stderr")" = 4 ] || fail "not a warning a link"
! grep -q '^links' "$work/stdout" || fail "links without a codec are named"
"$EDGEPIPE" plan "$work/campus.yaml" --set links.default.codec=int8 > "$work/stdout" || fail "int8: exit $?"
grep -q '^links   physics > library: int8 forward, int8 backward$' "$work/stdout" || fail "the codecs are not named"

# The closed form is the least value of the program that is written; long steps are said in minutes.
"$EDGEPIPE" plan "$work/campus.yaml" --dump-lp "$work/plan.lp" > "$work/stdout" || fail "--dump-lp: exit $?"
grep -q '^problem .*/plan.lp: .* 16 micro-batches of 1,' "$work/stdout" || fail "it is not said which problem"
grep -q 'closed form 0.1945 s (the least is 0.1900 s, proved)$' "$work/stdout" || fail "no closed form"
"$EDGEPIPE" plan "$work/campus.yaml" --set train.batch=65536 --set plan.solver=proportional > "$work/stdout" || fail "a long step"
grep -q '^predict [0-9.]* min a step, [0-9]*0 tokens/s' "$work/stdout" || fail "a long step in seconds"

# No size of a micro-batch takes less than the bound over all of them, those included that are too small to be tried.
bound=$("$EDGEPIPE" plan "$work/campus.yaml" --set train.batch=8192 -o - | sed -n 's/.*"lower_bound_s":\([^,]*\),.*/\1/p')
for size in 1 2 4; do
	"$EDGEPIPE" plan "$work/campus.yaml" --set train.batch=8192 --set train.micro_batch=$size -o - |
		sed -n 's/.*"simulated_step_s":\([^,]*\),.*/\1/p' | awk -v b="$bound" '{ exit !(b > 0 && b <= $1) }' ||
		fail "micro-batches of $size take less than the least, $bound s"
done

sed 's/, compute: [0-9.]* GFLOPS//; /^emulate/d' "$work/campus.yaml" > "$work/blind.yaml"
"$EDGEPIPE" plan "$work/blind.yaml" > "$work/stdout" || fail "without a speed: exit $?"
grep -q 'planned uniformly: no node declares its compute; declare it, or measure' "$work/stdout" || fail "why uniformly is not said"
refused "no file" 2 "which topology file" plan
refused "two files" 2 "one topology file" plan a b
refused "an unknown option" 2 "--explain" plan "$work/campus.yaml" --explian
refused "a file that is not there" 66 "none.yaml" plan none.yaml
refused "a key that is not there" 78 "learning_rate" plan "$work/campus.yaml" --set train.learning_rat=1
"$EDGEPIPE" plan "$work/campus.yaml" --set train.recompute=block > "$work/stdout" || fail "recompute: exit $?"
grep -q "^train.recompute block: backward computes every block's forward again" "$work/stdout" || fail "the level is not said"
refused "memory that does not suffice" 78 "MiB" plan "$work/campus.yaml" --set nodes.1.memory=2MiB --set plan.solver=proportional
# all_of SIZE: $memory is that for every node
all_of() {
	memory=
	for i in 0 1 2 3 4; do memory="$memory --set nodes.$i.memory=$1"; done
}
all_of 2MiB
refused "memory that suffices nowhere" 78 "no node holds even the process: 24 MiB before any weights; the largest, 'physics', has 2 MiB" plan \
	"$work/campus.yaml" $memory
grep -q '^  what helps: ' "$work/stderr" || fail "it is not said what helps"
all_of 27MiB
refused "memory that does not suffice in all" 78 " more than all nodes have left; the largest, 'physics', has 27 MiB" plan "$work/campus.yaml" $memory
more=$(sed -n 's/.* each), \([0-9.]*\) MiB more .*/\1/p' "$work/stderr")
# as much more as is said, evenly, and what whole blocks waste: half of it again
each=$(echo "$more" | awk '{ printf "%.0f", (27 + $1 / 5 * 1.5) * 1024 + 1024 }')
all_of "${each}KiB"
"$EDGEPIPE" plan "$work/campus.yaml" $memory > /dev/null 2> "$work/stderr" || { cat "$work/stderr"; fail "what is lacking in all does not suffice"; }
# Between what suffices in all and what holds a plan, whole blocks do not fit; whoever lacks least gets that much, until
# all blocks are held.
size=27648 part=0
while [ $size -lt "$each" ]; do
	all_of ${size}KiB
	status=0
	"$EDGEPIPE" plan "$work/campus.yaml" $memory > /dev/null 2> "$work/stderr" || status=$?
	[ $status = 0 ] && break
	grep -q 'not in whole blocks: they hold [0-9]* of 10, and .* lacks the least for one more' "$work/stderr" && part=$size
	size=$((size + 256))
done
[ $part -gt 0 ] || fail "memory that suffices in all, but not in whole blocks, is nowhere"
all_of ${part}KiB
for round in 1 2 3 4 5 6 7 8 9 10; do
	status=0
	"$EDGEPIPE" plan "$work/campus.yaml" $memory > /dev/null 2> "$work/stderr" || status=$?
	[ $status = 0 ] && break
	name=$(sed -n "s/.*, and '\([a-z]*\)' lacks the least .*/\1/p" "$work/stderr")
	number=$(sed -n 's/.*{name: \([a-z]*\),.*/\1/p' "$work/campus.yaml" | grep -n "^$name\$" | cut -d : -f 1)
	lack=$(sed -n 's/.* lacks the least for one more[a-z ]*, \([0-9.]* [KM]iB\);.*/\1/p' "$work/stderr" |
		awk '{ printf "%.0f", $1 * ($2 == "MiB" ? 1024 : 1) * 1.02 + 16 }')
	[ -n "$name" ] && [ -n "$lack" ] || break
	eval "given_$name=\$((\${given_$name:-$part} + $lack))"
	eval "memory=\"$memory --set nodes.$((number - 1)).memory=\${given_$name}KiB\""
done
# The blocks are held then; that a cut fits is not promised.
[ $status = 0 ] || grep -q 'no cut into stages was found that fits' "$work/stderr" ||
	{ cat "$work/stderr"; fail "what nodes lack for one more block each does not hold all blocks"; }
refused "an unknown solver" 78 'did you mean "exact"' plan "$work/campus.yaml" --set plan.solver=exakt
bad() {
	edited "$3"
	refused "$1" 78 "$2" plan "$work/campus.yaml" --plan "$work/edited.json"
}
bad "a gap" "block 3 is on no stage" 's/"first_block":3,/"first_block":4,/'
bad "an overlap" "which stage 0 has already" 's/"first_block":3,/"first_block":2,/'
bad "blocks that are missing at the end" "the stages end with block 8" 's/"first_block":9,"last_block":9,/"first_block":0,"last_block":-1,/'
bad "a block beyond the last" "the model's last is 9" 's/"last_block":9,/"last_block":12,/'
bad "an unknown node" 'did you mean "music"' 's/"music"/"musik"/'
bad "a node twice" "has stage 2 already" 's/"music"/"workshop"/'
bad "another model" "of another model" 's/"model_digest":"..../"model_digest":"0000/'
bad "an unknown schedule" "is none" 's/"schedule":"eager"/"schedule":"lazy"/'
bad "a micro-batch that does not divide" "does not divide" 's/"micro_batch":1,/"micro_batch":3,/'
bad "no version" "version: must be 1" 's/"version":1/"version":2/'
echo '{' > "$work/edited.json"
refused "what is no JSON" 65 "edited.json:" plan "$work/campus.yaml" --plan "$work/edited.json"
refused "a plan that is not there" 66 "gone.json" plan "$work/campus.yaml" --plan "$work/gone.json"
refused "a plan and layers" 78 "plan.layers" plan "$work/campus.yaml" --plan "$work/plan.json" --set "plan.layers=[2,2,2,2,2]"
refused "plans that are ranked, and one that is given" 2 "--plan gives one" plan "$work/campus.yaml" --plan "$work/plan.json" --top 2
refused "no rank" 2 "not in 1..100" plan "$work/campus.yaml" --top 0
refused "ranked plans on standard output" 2 "several files" plan "$work/campus.yaml" --top 2 -o -
refused "a profile that is not there" 66 "profile.json" plan "$work/campus.yaml" --profile profile.json
"$EDGEPIPE" plan "$work/campus.yaml" --dump-lp "$work/plan.lp" > /dev/null && grep -q '^Minimize' "$work/plan.lp" &&
	tail -n 1 "$work/plan.lp" | grep -qx End || fail "--dump-lp"
refused "a sequence above the positions" 78 "positions" plan "$work/campus.yaml" --set data.sequence=4096
refused "a picture without a prediction" 78 "declares its compute" plan "$work/blind.yaml" --svg "$work/none.svg"
refused "two files on standard output" 2 "only one" plan "$work/campus.yaml" -o - --svg -
refused "an output folder that is not there" 73 "nowhere" plan "$work/campus.yaml" -o "$work/nowhere/plan.json"
finish
