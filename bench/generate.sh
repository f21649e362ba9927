#!/bin/sh
# How soon tokens come: edgepipe generate on one rank beside transformers' generate in turns, one prompt and several at
# once, and what that is of the memory's speed: every token of a batch of one takes all weights but those of embeddings
# that no product reads.
#
#   sh bench/generate.sh --model DIR
#
#   --model DIR         a model directory of the GPT-2 family (its weights may be random)
#   --batches "1 8"     prompts at once
#   --precisions "fp32 bf16"
#   --tokens 64         new ones a prompt; prompts have 32
#   --rounds 3          the best of which counts
#   --cores N           (default: all)
#   --build DIR         (default: build/ of this checkout)
#
# PEER_PYTHON is a python with torch and transformers, without which theirs are skipped. A line a precision and batch:
# tokens/s of both, GB/s of weights that edgepipe reads, and the speed of a copy of 1 GiB (what it reads and writes).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

model='' batches='1 8' precisions='fp32 bf16' tokens=64 rounds=3 cores=$(nproc) build=$root/build
take_options 'model batches precisions tokens rounds cores build' "$@"
need_build
[ -f "$model/config.json" ] || fail "no model in '$model' (--model DIR)" 66
model=$(cd "$model" && pwd)
python=${PEER_PYTHON:-}

# ours PRECISION BATCH: tokens/s after the first of every prompt
ours() {
	python3 - "$2" > "$work/prompts.txt" <<'END'
import sys
for i in range(int(sys.argv[1])):
    print(*[(37 * i + 11 * k) % 5000 for k in range(32)])
END
	cat > "$work/job.yaml" <<END
version: 1
nodes: [{name: one, cores: $cores}]
model: {path: $model}
train: {precision: $1}
END
	"$build/edgepipe" generate "$work/job.yaml" --ids --prompts "$work/prompts.txt" --batch "$2" --tokens "$tokens" \
		--json "$work/out.json" > /dev/null 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
	python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
print((r["tokens"] - len(r["prompts"])) / r["token_s"])' "$work/out.json"
}

# theirs PRECISION BATCH
theirs() {
	[ "$python" ] || { echo 0; return; }
	OMP_NUM_THREADS=$cores "$python" "$root/bench/generate.py" "$model" "$1" "$2" "$tokens" 2> "$work/log" ||
		{ cat "$work/log" >&2; exit 1; }
}

# bytes PRECISION: of the weights that a token takes
weights() {
	python3 - "$model/config.json" "$1" <<'END'
import json, sys
c = json.load(open(sys.argv[1]))
C, V, L = c["n_embd"], c["vocab_size"], c["n_layer"]
print((12 * C * C * L + V * C) * (2 if sys.argv[2] == "bf16" else 4))
END
}

copy=0
[ ! "$python" ] || copy=$(OMP_NUM_THREADS=$cores "$python" "$root/bench/generate.py" copy)
for precision in $precisions; do
	for batch in $batches; do
		: > "$work/ours"
		: > "$work/theirs"
		for _ in $(seq "$rounds"); do
			ours "$precision" "$batch" >> "$work/ours"
			theirs "$precision" "$batch" >> "$work/theirs"
		done
		echo "$precision $batch $(sort -g "$work/ours" | tail -n 1) $(sort -g "$work/theirs" | tail -n 1) $(weights "$precision") $copy"
	done
done | awk '
	{ printf "%s, %2d at once: %7.1f tokens/s", $1, $2, $3 }
	$4 > 0 { printf ", transformers %7.1f (%.2f times)", $4, $3 / $4 }
	{ printf "; weights at %.1f GB/s", $3 / $2 * $5 / 1e9 }
	$6 > 0 { printf " of %.1f that a copy has", $6 / 1e9 }
	{ print ""; fflush() }'
