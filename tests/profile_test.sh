#!/bin/sh
# edgepipe profile: what it measures under mpirun and alone, what plan makes of it, what is refused.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/profile_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
source=$(cd "$EDGEPIPE_SOURCE" && pwd)
export XDG_CACHE_HOME="$work/cache"

# number FILE SED-PATTERN: the first number that the pattern's group gives
number() {
	sed -n "s/.*$2.*/\1/p" "$1" | head -n 1
}

# near NAME VALUE EXPECTED SHARE; what is far off goes into $off
near() {
	awk -v v="${2:-0}" -v e="$3" -v s="$4" 'BEGIN { exit !(v > e * (1 - s) && v < e * (1 + s)) }' ||
		off="$off; $1: ${2:-nothing}, not about $3"
}
off=

# One node, as it is: no mpirun, no data.
cat > "$work/one.yaml" <<END
version: 1
nodes: [{name: alone, cores: 1}]
model: {path: $source/topologies/campus/model}
lora: {targets: all}
data: {sequence: 64}
train: {batch: 8}
END
(cd / && "$EDGEPIPE" profile "$work/one.yaml" -o "$work/one.json") > "$work/stdout" || fail "one node: exit $?"
grep -q '^profile  1/1 | every node' "$work/stdout" || fail "no progress"
grep -q '^alone .* us\|^alone .* ms' "$work/stdout" || fail "no table"
test "$(cat "$XDG_CACHE_HOME"/edgepipe/profile-*.json)" = "$(cat "$work/one.json")" || fail "the cache holds something else"
grep -q '"update_s":[0-9]' "$work/one.json" || fail "no update"
"$EDGEPIPE" plan "$work/one.yaml" --profile "$work/one.json" --explain > "$work/stdout" || fail "plan --profile: exit $?"
grep -q 'simulated from measured numbers' "$work/stdout" || fail "the plan does not say measured"
grep -q 'measured$' "$work/stdout" || fail "the explanation does not say measured"
"$EDGEPIPE" plan "$work/one.yaml" --profile "$work/one.json" -o - | grep -q '"profile_digest":"[0-9a-f]' || fail "no digest in the plan"

sed -e 's/"build_digest":"f/"build_digest":"0/; t' -e 's/"build_digest":"./"build_digest":"f/' "$work/one.json" > "$work/build.json"
refused "other sources" 78 '(the sources differ)' plan "$work/one.yaml" --profile "$work/build.json"
refused "what to do" 78 'measure again: edgepipe profile TOPOLOGY' plan "$work/one.yaml" --profile "$work/one.json" --set lora.rank=4
"$EDGEPIPE" plan "$work/one.yaml" --profile "$work/one.json" --set data.sequence=48 > "$work/stdout" 2> "$work/stderr" &&
	grep -q "one.json': measured with sequences of .* tokens: its times are extrapolated to 48" "$work/stderr" ||
	fail "another sequence"
refused "another rank" 78 'measured with lora.rank 8, now it is 4' plan "$work/one.yaml" --profile "$work/one.json" --set lora.rank=4
refused "another level of recompute" 78 'measured with train.recompute "none", now it is "block"' plan "$work/one.yaml" \
	--profile "$work/one.json" --set train.recompute=block
refused "a missing node" 78 'no node "other"' plan "$work/one.yaml" --profile "$work/one.json" --set nodes.0.name=other
head -c 700 "$work/one.json" > "$work/cut.json"
refused "a cut file" 65 "cut.json:" plan "$work/one.yaml" --profile "$work/cut.json"
grep -q "cut.json:[0-9]*:[0-9]*: error" "$work/stderr" || fail "it is not said where the file is cut"
sed 's/"c1":[^,]*/"c1":-1/' "$work/one.json" > "$work/bad.json"
refused "a negative number" 65 'nodes[0].block_forward.c1: -1, not a number' plan "$work/one.yaml" --profile "$work/bad.json"
refused "no topology" 2 "which topology file" profile
refused "an unknown option" 2 "did you mean '--output'" profile "$work/one.yaml" --outpt x
refused "a folder that is not there" 73 "cannot create '$work/nowhere/p.json'" profile "$work/one.yaml" -o "$work/nowhere/p.json"
! grep -q '^profile' "$work/stderr" || fail "it is measured for a file that cannot be written"
"$EDGEPIPE" plan "$work/one.yaml" --profile "$work/one.json" -o "$work/one.plan"
refused "a plan as a profile" 65 'this is a plan: use --plan' plan "$work/one.yaml" --profile "$work/one.plan"
refused "a profile as a plan" 78 'this is a profile: use --profile' plan "$work/one.yaml" --plan "$work/one.json"

if ! command -v mpirun > /dev/null; then
	echo "skipped: several nodes: no mpirun"
	finish
fi
. "$source/launch/env.sh"

# Three nodes that are held to declared numbers, one direction slower than the other: law 16, the paced speed is seen.
cat > "$work/three.yaml" <<END
version: 1
nodes:
  - {name: a, compute: 2 GFLOPS, cores: 1}
  - {name: b, compute: 1 GFLOPS, cores: 1}
  - {name: c, compute: 4 GFLOPS, cores: 1}
links:
  default: {bandwidth: 40 Mbit/s, latency: 2 ms}
  between: [{from: b, to: a, bandwidth: 10 Mbit/s, latency: 5 ms}]
emulate: {links: true, compute: true}
model: {path: $source/topologies/campus/model}
lora: {targets: all}
data: {sequence: 64}
train: {batch: 4, micro_batch: 2}
END
measures() {
	off=
	timeout 120 mpirun -np 3 "$EDGEPIPE" profile "$work/three.yaml" -o "$work/three.json" > "$work/stdout" 2>&1 ||
		{ cat "$work/stdout"; fail "three nodes: exit $?"; }
	! grep -q guessed "$work/three.json" || fail "something was not measured"
	line='"from":"b","to":"a","source":"measured","latency_s":'
	near "bandwidth b > a" "$(number "$work/three.json" "$line[^,]*,\"bandwidth_bytes_s\":\([^,]*\)")" 1.25e6 0.05
	near "latency b > a" "$(number "$work/three.json" "$line\([^,]*\)")" 0.005 0.3
	near "bandwidth a > b" "$(number "$work/three.json" '"from":"a","to":"b".*"bandwidth_bytes_s":\([0-9.e+]*\),"both')" 5e6 0.05
	# times as declared: the same plan from both, within what the pace is held to
	for what in declared measured; do
		[ $what = declared ] && set -- || set -- --profile "$work/three.json"
		"$EDGEPIPE" plan "$work/three.yaml" "$@" -o "$work/$what.json" > "$work/stdout" || fail "plan, $what: exit $?"
	done
	near "forward of the first stage" "$(number "$work/measured.json" '"stage":0.*"forward_s":\([^,]*\)')" \
		"$(number "$work/declared.json" '"stage":0.*"forward_s":\([^,]*\)')" 0.1
	near "seconds of the first link" "$(number "$work/measured.json" '"forward_link":{"to":1,[^}]*"seconds":\([^,]*\)')" \
		"$(number "$work/declared.json" '"forward_link":{"to":1,[^}]*"seconds":\([^,]*\)')" 0.05
}
# Another program may take the cores while one number is measured, but not each time.
for _ in 1 2 3 4 5; do
	measures
	[ -n "$off" ] || break
	echo "measured once more$off"
done
[ -z "$off" ] || fail "five times${off}"
refused "another pace" 78 'node "b" was held to 1 GFLOPS, now it declares 3 GFLOPS' plan "$work/three.yaml" \
	--profile "$work/three.json" --set 'nodes.1.compute=3 GFLOPS'
refused "another link" 78 'the link a > c was held to 40 Mbit/s, 2 ms' plan "$work/three.yaml" \
	--profile "$work/three.json" --set 'links.default.bandwidth=20 Mbit/s'
refused "many other links" 78 'and 2 more links differ' plan "$work/three.yaml" \
	--profile "$work/three.json" --set 'links.default.bandwidth=20 Mbit/s'
refused "no emulation" 78 'links held to declared numbers, now they are as they are' plan "$work/three.yaml" \
	--profile "$work/three.json" --set emulate.links=false
# train plans with it, keeps it, and refuses one that does not hold
sed "s|^data:.*|data: {sequence: 64, train: $source/topologies/campus/train.jsonl}|; s|micro_batch: 2|micro_batch: 2, steps: 2|" \
	"$work/three.yaml" > "$work/train.yaml"
trains() {
	rm -rf "$work/run"
	timeout 120 mpirun -np 3 "$EDGEPIPE" train "$work/train.yaml" --out "$work/run" "$@" > "$work/stdout" 2>&1
}
trains --profile "$work/three.json" || { cat "$work/stdout"; fail "train --profile: exit $?"; }
grep -q 'simulated from measured numbers' "$work/stdout" || fail "train does not plan with the profile"
cmp "$work/three.json" "$work/run/profile.json" || fail "RUN/profile.json is another"
"$EDGEPIPE" plan "$work/train.yaml" --profile "$work/three.json" -o - | grep -o '"profile_digest":"[^"]*"' > "$work/digest"
grep -q "$(cat "$work/digest")" "$work/run/plan.json" || fail "the digests of one profile differ"
# what the run measured, as a table and as the profile that the next plan starts from
grep -q '^outcome of 1 steady steps, measured numbers' "$work/stdout" || fail "no outcome"
stage=$(grep -A 2 '^outcome' "$work/stdout" | tail -n 1)
predicted=$(number "$work/run/plan.json" '"stage":0.*"forward_s":\([^,]*\)')
"$EDGEPIPE" plan "$work/train.yaml" --profile "$work/run/profile.measured.json" -o "$work/next.json" > "$work/log" ||
	fail "plan with profile.measured.json: exit $?"
near "the next plan's forward" "$(number "$work/next.json" '"stage":0.*"forward_s":\([^,]*\)')" \
	"$(grep '"step":2' "$work/run/metrics.jsonl" | sed -n 's/.*"stages":\[{[^}]*"forward_s":\([^,]*\).*/\1/p' | awk '{ print $1 / 2 }')" 0.001
[ -z "$off" ] || fail "the next plan$off"
echo "$stage" | awk -v p="$predicted" '{ s = $4 == "us" ? 1e-6 : $4 == "ms" ? 1e-3 : 1; exit !($3 * s > p * 0.98 && $3 * s < p * 1.02) }' ||
	fail "the table predicts otherwise than the plan ($predicted): $stage"
# ends are measured where the stage holds them, and elsewhere what they were
holder() {
	sed -n "s/.*\"stage\":$1,\"nodes\":\[\"\([^\"]*\)\".*/\1/p" "$work/run/plan.json"
}
part_of() {
	sed -n "/\"node\":\"$2\"/,/\"process\"/s/.*\"$3\":{\(.*\)},/\1/p" "$1"
}
last=$(grep -c '"stage":' "$work/run/plan.json")
first=$(holder 0) last=$(holder $((last - 1)))
[ -n "$first" ] && [ -n "$last" ] && [ "$first" != "$last" ] || fail "no two stages"
for pair in "$first head_forward" "$first head_backward" "$last embedding_forward"; do
	set -- $pair
	[ -n "$(part_of "$work/three.json" "$1" "$2")" ] &&
		[ "$(part_of "$work/three.json" "$1" "$2")" = "$(part_of "$work/run/profile.measured.json" "$1" "$2")" ] ||
		fail "$2 of $1, which does not hold it, is another after the run"
done
[ "$(part_of "$work/three.json" "$last" head_forward)" != "$(part_of "$work/run/profile.measured.json" "$last" head_forward)" ] ||
	fail "the head of $last is not measured"
# links that carry less than the profile says are named before the training
sed -E 's/"bandwidth_bytes_s":[0-9.e+]*,"both_bytes_s":[0-9.e+]*/"bandwidth_bytes_s":2e7,"both_bytes_s":2e7/' "$work/three.json" \
	> "$work/fast.json"
trains --profile "$work/fast.json" --set plan.solver=proportional || { cat "$work/stdout"; fail "train with a profile of faster links: exit $?"; }
grep -q 'warning: the link a > b carries .* while all links of the plan are busy, [12][0-9] % of the 160 Mbit/s' "$work/stdout" ||
	{ cat "$work/stdout"; fail "a link that carries less is not named"; }
got=0
trains --profile "$work/three.json" --set emulate.slowdown=2 || got=$?
[ $got = 78 ] && grep -q 'measured with emulate.slowdown 1, now it is 2' "$work/stdout" || fail "a stale --profile is taken ($got)"
# what is not held to declared numbers is measured where none is kept, then taken from the cache; what is held is not
for how in 'none is kept' 'profile from'; do
	trains --set emulate.compute=false --set data.sequence=32 --set lora.rank=4 || { cat "$work/stdout"; fail "train, $how: exit $?"; }
	grep -q "$how" "$work/stdout" || fail "train does not say '$how'"
	test -e "$work/run/profile.json" || fail "train keeps no profile, $how"
done
trains && ! grep -q 'measuring' "$work/stdout" || fail "what is held to declared numbers is measured"
grep -q '^profile not needed: nodes and links are held' "$work/stdout" || fail "train does not say why it does not measure"
trains --set plan.solver=uniform && ! grep -q '^profile' "$work/stdout" || fail "uniform profiles"
test ! -e "$work/run/profile.json" || fail "uniform keeps a profile"
refused "too few ranks" 78 "mpirun -np 3 edgepipe profile" profile "$work/three.yaml"
finish
