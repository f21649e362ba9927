#!/bin/sh
# train.precision bf16 end to end: where the CPU multiplies bf16 it is said and used; where it does not
# (ONEDNN_MAX_CPU_ISA takes it away), or edgepipe was built without oneDNN, one line says so and fp32 is computed, to the
# last bit. What is asked for by name and is not there is refused.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/precision_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
golden=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)/qwen3
cat > "$work/job.yaml" << EOF
version: 1
nodes: [{name: n0, cores: 1}, {name: n1, cores: 1}]
model: {path: $golden/model}
lora: {rank: 3, targets: all}
data: {train: $golden/batches.safetensors}
train: {batch: 4, micro_batch: 1, steps: 4, learning_rate: 1e-2, checkpoint_every: 0}
plan: {solver: uniform}
EOF
sed 's/, {name: n1, cores: 1}//' "$work/job.yaml" > "$work/one.yaml"

# trained NAME SETTINGS...: trains on two ranks; the steps and the adapter's checksum into $work/NAME.result
trained() {
	out=$work/$1
	shift
	timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$out" "$@" > "$out.log" 2>&1 || {
		cat "$out.log"
		fail "$out does not train"
		return 0
	}
	{
		grep '"kind":"step"' "$out/metrics.jsonl" | sed -e 's/,"step_s":.*//'
		cksum < "$out/adapter/adapter_model.safetensors"
	} > "$out.result"
}

# lines NAME WORDS COUNT: how many lines of its log begin with bf16 and have these words
lines() {
	found=$(grep '^bf16 ' "$work/$1.log" | grep -cF -e "$2" || true)
	[ "$found" = "$3" ] || { fail "$1: $found lines say \"$2\", not $3"; grep bf16 "$work/$1.log" || true; }
}

trained fp32
lines fp32 "" 0
# each node says it once
ONEDNN_MAX_CPU_ISA=AVX2 trained fp32-avx2
ONEDNN_MAX_CPU_ISA=AVX2 trained without --set train.precision=bf16
lines without "not here, fp32 instead" 2
lines without "stored activations" 0
cmp "$work/fp32-avx2.result" "$work/without.result" || fail "bf16 that is not there is not fp32"

trained bf16 --set train.precision=bf16
if grep -q "not here, fp32 instead" "$work/bf16.log"; then
	echo "skipped: bf16 itself, which this CPU (or the build) does not multiply"
	cmp "$work/fp32.result" "$work/bf16.result" || fail "bf16 that is not there is not fp32"
else
	lines bf16 "stored activations" 2
	! cmp -s "$work/fp32.result" "$work/bf16.result" || fail "bf16 computes what fp32 does"
	# the losses of four steps, beside fp32's
	for name in fp32 bf16; do
		sed -n 's/.*"loss":\([0-9.]*\).*/\1/p' "$work/$name.result" > "$work/$name.losses"
	done
	paste "$work/fp32.losses" "$work/bf16.losses" |
		awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 0.05) bad = 1; n++ } END { exit bad || n != 4 }' ||
		fail "losses differ by more than 0.05: $(paste -s "$work/fp32.losses" "$work/bf16.losses")"
fi

refused "bf16 by kernels of fp32" 78 "fp32 alone" train "$work/one.yaml" --out "$work/no" --set train.precision=bf16 \
	--set train.kernels=openblas
if grep -q oneDNN "$work/fp32/ckpt/step-00000004/manifest.json"; then
	trained onednn --set train.kernels=onednn
else
	refused "oneDNN that was not built in" 78 "without oneDNN" train "$work/one.yaml" --out "$work/no" \
		--set train.kernels=onednn
fi
finish
