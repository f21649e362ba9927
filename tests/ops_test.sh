#!/bin/sh
# train --profile-ops: a table that adds up, ops.json that says the same, for one rank and for three; and the same adapter
# as without it.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/ops_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
source=$(cd "$EDGEPIPE_SOURCE" && pwd)
campus=$source/topologies/campus
. "$source/launch/env.sh"

# topology NAME NODES...
topology() {
	file=$work/$1.yaml
	echo "version: 1" > "$file"
	echo "nodes:" >> "$file"
	shift
	for node; do
		echo "  - {name: $node, cores: 1}" >> "$file"
	done
	cat >> "$file" << END
model: {path: $campus/model}
data: {train: $campus/train.jsonl, valid: $campus/valid.jsonl, sequence: 64}
train: {batch: 4, micro_batch: 1, steps: 4, validate_every: 2}
plan: {solver: uniform}
END
}

# has FILE PATTERN...: a line for every one of them
has() {
	file=$1
	shift
	for pattern; do
		grep -qE -e "$pattern" "$file" || fail "$(basename "$file"): no line \"$pattern\""
	done
}

# adds_up RUN STAGES: ops.json against itself. What every stage of the demo does in a step is counted here anew.
adds_up() {
	if ! command -v python3 > /dev/null; then
		echo "skipped: reading ops.json with another program: no python3"
		return
	fi
	python3 - "$1/ops.json" "$2" << 'END' || fail "$1/ops.json"
import json, sys
file = json.load(open(sys.argv[1]))
stages = file["stages"]
assert file["version"] == 1 and [s["stage"] for s in stages] == list(range(int(sys.argv[2]))), stages
for s in stages:
    ops = s["ops"]
    total = sum(op["seconds"] for op in ops)
    assert s["steps"] == 3, s["steps"]
    assert 0 < total < s["step_s"], (total, s["step_s"])
    assert abs(total - s["ops_s"]) < 1e-6 and abs(s["ops_s"] + s["rest_s"] - s["step_s"]) < 1e-6
    assert s["untold"]["calls"] == 0 and s["limits"]["origin"] == "measured"
    assert all(op["calls"] > 0 and op["seconds"] > 0 and op["bytes"] > 0 for op in ops)
    assert len({(op["op"], op["shape"], op["dtype"]) for op in ops}) == len(ops)
    rates = s["limits"]["product_flops_s"]
    assert all(op["dtype"] in rates for op in ops if op["flops"]), rates
    for op in ops:
        least = max(op["flops"] / rates.get(op["dtype"], rates["F32"]), op["bytes"] / s["limits"]["memory_bytes_s"])
        assert abs(least / op["seconds"] / op["of_limit"] - 1) < 1e-4, op
        assert op["limit"] in ("products", "memory")
    products = [op for op in ops if op["op"] in ("matmul", "linear", "head_loss")]
    assert s["products"]["flops"] == sum(op["flops"] for op in products) > 0
    least = sum(op["flops"] / rates[op["dtype"]] for op in products)
    assert abs(least / s["products"]["seconds"] / s["products"]["of_limit"] - 1) < 1e-4
def calls(name):
    return sum(op["calls"] for s in stages for op in s["ops"] if op["op"] == name)
def flops(name):
    return sum(op["flops"] for s in stages for op in s["ops"] if op["op"] == name)
# 4 micro-batches of 64 tokens through 10 blocks of 4 linears, forward and back, but for the lowest one's back, and the head;
# rank 8 rides in c_attn; 4 heads of 24. Nothing of the validation. In BF16 head and loss are one op with both products.
heads = calls("head_loss")
assert heads == (4 if any(op["dtype"] == "BF16" for s in stages for op in s["ops"]) else 0), heads
assert calls("attention") == calls("attention_backward") == 4 * 10
assert calls("linear") + 2 * heads == 4 * (2 * 10 * 4 - 1 + 2), calls("linear")
forward, back = (96 + 8) * 288, (288 + 8) * 96
assert flops("linear") + flops("head_loss") == 4 * 2 * 64 * (10 * forward + 9 * back + 2 * (10 * (96 * 96 + 2 * 96 * 384) + 96 * 1024))
assert flops("attention") * 2 == flops("attention_backward") == 4 * 10 * 4 * 2 * 4 * 24 * (64 * 65 // 2)
END
}

# shares FILE: of each table, the rows' shares sum to the step's, and so do ops and rest
shares() {
	awk '
	/^op \(a step\)/ { inside = 1; sum = rows = 0; next }
	!inside { next }
	{ share = ""; for (i = 1; i <= NF; i++) if ($i ~ /^-?[0-9.]+%$/) { share = $i + 0; break } }
	/^sum of ops/ { ops = share; if (sum < ops - 0.05 * rows - 0.1 || sum > ops + 0.05 * rows + 0.1) bad = 1; next }
	/^rest: waiting, messages, dispatch/ { rest = share; next }
	/^step / { tables++; inside = 0; if (share != 100 || ops + rest < 99.8 || ops + rest > 100.2) bad = 1; next }
	{ sum += share; rows++ }
	END { exit bad || tables != '"$2"' }' "$1" || fail "$(basename "$1"): shares do not add up"
}

topology one laptop
"$EDGEPIPE" train "$work/one.yaml" --out "$work/plain" > "$work/one.log" 2>&1 || fail "one rank: exit $?"
! grep -q '^ops ' "$work/one.log" || fail "a table that nobody asked for"
[ ! -e "$work/plain/ops.json" ] || fail "an ops.json that nobody asked for"
"$EDGEPIPE" train "$work/one.yaml" --out "$work/one" --profile-ops > "$work/one.log" 2>&1 || {
	cat "$work/one.log"
	fail "one rank, --profile-ops: exit $?"
}
cmp "$work/plain/adapter/adapter_model.safetensors" "$work/one/adapter/adapter_model.safetensors" || fail "another adapter"
has "$work/one.log" '^ops     stage 0 \(laptop\), 1 thread: 3 steps of ' \
	'^ +limits, measured: products [0-9.e+]+ GFLOP/s \(F32, .* memory [0-9.e+]+ GB/s \(copy of ' \
	'^linear 64 x 104 -> 288 +40  .* GFLOP/s +[0-9]+% of (products|memory)$' \
	'^attention_backward 1 x 64, 4 heads of 24 +40  .* GFLOP/s ' '^gelu 64 x 384 +40  .* GB/s ' \
	'^thin [0-9]+ x [0-9]+ -> [0-9]+ ' '^others \([0-9]+\) +[0-9.]+ +[0-9.]+ [a-z]+ +[0-9.]+%$' '^products of linears and head: .* of the limit of products$' 'ops.json has all'
shares "$work/one.log" 1
adds_up "$work/one" 1

# Products of bf16 are held against the rate of bf16. Where the CPU has none, all is F32 again.
"$EDGEPIPE" train "$work/one.yaml" --out "$work/half" --profile-ops --set train.precision=bf16 > "$work/half.log" 2>&1 ||
	fail "bf16: exit $?"
adds_up "$work/half" 1

# Of two steps both count; of none there is nothing to tell.
"$EDGEPIPE" train "$work/one.yaml" --out "$work/two" --profile-ops --set train.steps=2 > "$work/two.log" 2>&1 || fail "two steps"
has "$work/two.log" '^ops     stage 0 \(laptop\), 1 thread: 2 steps of '
"$EDGEPIPE" train "$work/one.yaml" --out "$work/two" --resume --profile-ops --set train.steps=2 > "$work/two.log" 2>&1 ||
	fail "no steps"
has "$work/two.log" '^ops     no step was run'
# What --overwrite gives up.
"$EDGEPIPE" train "$work/one.yaml" --out "$work/two" --overwrite --set train.steps=2 > "$work/two.log" 2>&1 || fail "overwrite"
[ ! -e "$work/two/ops.json" ] || fail "ops.json of a run that was given up"

if command -v mpirun > /dev/null; then
	topology three north south west
	timeout 100 mpirun -np 3 "$EDGEPIPE" train "$work/three.yaml" --out "$work/three" --profile-ops > "$work/three.log" 2>&1 || {
		cat "$work/three.log"
		fail "three ranks"
	}
	cmp "$work/plain/adapter/adapter_model.safetensors" "$work/three/adapter/adapter_model.safetensors" ||
		fail "three ranks: another adapter"
	has "$work/three.log" 'stage 0 \(north\)' 'stage 1 \(south\)' 'stage 2 \(west\)'
	shares "$work/three.log" 3
	adds_up "$work/three" 3
else
	echo "skipped: three ranks: no mpirun"
fi

"$EDGEPIPE" train --help > "$work/help"
has "$work/help" '^      --profile-ops ' ' train .* --profile-ops$'
for command in plan profile compare; do
	refused "$command --profile-ops" 2 "--profile-ops" $command --profile-ops "$work/one.yaml"
done
refused "report --profile-ops" 2 "--profile-ops" report --profile-ops "$work/one"
finish
