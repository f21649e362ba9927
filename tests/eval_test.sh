#!/bin/sh
# `edgepipe eval` as people call it: alone and over MPI, what it writes, what it refuses.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/eval_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
golden=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)/llama3
cat > "$work/job.yaml" <<EOF
version: 1
nodes: [{name: a, cores: 1}, {name: b, cores: 1}, {name: c, cores: 1}]
model: {path: $golden/model}
data: {valid: $golden/batches.safetensors}
train: {batch: 4, micro_batch: 1}
plan: {solver: uniform}
EOF

# loss FILE: the loss that a result says
loss() {
	sed -n 's/.*"loss": \([^,]*\),.*/\1/p' "$1"
}

"$EDGEPIPE" eval "$work/job.yaml" --adapter "$golden/initial" --json "$work/alone.json" > "$work/alone"
grep -q 'perplexity' "$work/alone" || fail "alone: no perplexity"
timeout 60 mpirun -np 3 "$EDGEPIPE" eval "$work/job.yaml" --adapter "$golden/initial" --json - \
	> "$work/three.json" 2> "$work/three" || fail "three ranks"
[ -n "$(loss "$work/alone.json")" ] && [ "$(loss "$work/alone.json")" = "$(loss "$work/three.json")" ] ||
	fail "three ranks find another loss"
grep -q '"stages": 3' "$work/three.json" || fail "three ranks are not three stages"
[ "$(wc -l < "$work/three.json")" = 1 ] || fail "standard output is not the JSON alone"
[ -z "$(find "$work" -name runs)" ] || fail "a run directory was written"

refused "no file" 2 "which topology file" eval
refused "an option" 2 "did you mean '--adapter'?" eval "$work/job.yaml" --adaptr x
refused "no data" 78 "data.valid: missing, and --data FILE was not given" eval "$work/job.yaml" --set data.valid=null
refused "no adapter" 66 "cannot find the adapter folder" eval "$work/job.yaml" --adapter "$work/none"
mkdir "$work/run" && : > "$work/run/metrics.jsonl"
refused "a run that goes on" 66 "has no adapter yet" eval "$work/job.yaml" --adapter "$work/run"
mkdir "$work/empty"
refused "an empty folder" 66 "'$work/empty' is no adapter: it has no adapter_config.json; --adapter takes a folder" \
	eval "$work/job.yaml" --adapter "$work/empty"
refused "a file" 66 "'$work/job.yaml' is no adapter: it is a file" eval "$work/job.yaml" --adapter "$work/job.yaml"
refused "a model" 66 "and looks like a model" eval "$work/job.yaml" --adapter "$golden/model"
mkdir "$work/other" && echo '{"a": 1}' > "$work/other/adapter_config.json"
refused "another JSON file" 65 "$work/other/adapter_config.json" eval "$work/job.yaml" --adapter "$work/other"
refused "an adapter for another model" 78 "\"c_attn\" matches no linear of this model" \
	eval "$work/job.yaml" --adapter "$EDGEPIPE_SOURCE/tests/golden/gpt2/initial"
refused "no such data" 66 "$work/none.jsonl" eval "$work/job.yaml" --data "$work/none.jsonl"
ends "too few ranks" 78 "3 nodes, but 2 ranks" timeout 60 mpirun -np 2 "$EDGEPIPE" eval "$work/job.yaml"
finish
