#!/bin/sh
# What bf16 costs in quality, on trained models: the losses of a fine-tune beside those of the same in fp32, the LoRA
# gradients of one step beside fp32's, and their error beside double precision, with PyTorch's own bf16 error beside it.
#
#   sh bench/bf16.sh --models DIR --texts DIR
#
#   --models DIR        holds stories260K and capp-gpt2: config.json, model.safetensors; stories260K its tokenizer.model,
#                       too, and capp-gpt2 golden.json, whose cases are its text
#   --texts DIR         holds tinystories/tinystories-2MiB.txt
#   --steps 100         of 8 sequences of 128 tokens
#   --rate 1e-3         of learning
#   --precision bf16    what is compared with fp32
#   --build DIR         (default: build/ of this checkout)
#
# The adapters of the step whose gradients are compared were trained for ten steps, so that none of their matrices is zero.
# Needs python3; PEER_PYTHON is one with torch, transformers and peft, without which the errors are skipped. Goals: losses
# within 5e-3, a cosine of at least 0.999, an error of at most twice that of PyTorch's bf16.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

models='' texts='' steps=100 rate=1e-3 precision=bf16 build=$root/build
take_options 'models texts steps rate precision build' "$@"
need_build
export PYTHONDONTWRITEBYTECODE=1
python=${PEER_PYTHON:-python3}
command -v "$python" > "$work/log" || fail "no $python" 69
[ ! "$models" ] || models=$(cd "$models" && pwd) || fail "no folder '$models'" 66

# train NAME PRECISION DATA STEPS OPTIONS...: a run that ends with $work/NAME
train() {
	out=$work/$1
	cat > "$work/job.yaml" << END
version: 1
name: bf16
nodes:
  - {name: one}
model: {path: $model}
lora: {rank: 8, alpha: 16, targets: all, dropout: 0.0}
data: {train: $3}
train: {batch: 8, micro_batch: 8, steps: $4, learning_rate: $rate, precision: $2, checkpoint_every: 0}
END
	shift 4
	"$build/edgepipe" train "$work/job.yaml" --out "$out" --overwrite "$@" > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; exit 1; }
}

# losses NAME: of every step
losses() {
	steps_of "$work/$1/metrics.jsonl" | cut -d ' ' -f 1
}

# compare NAME: $model on $work/NAME/train.safetensors, gradients of the one batch in $work/NAME/batch/train.safetensors
compare() {
	text=$work/$1/train.safetensors batch=$work/$1/batch/train.safetensors
	train fp32 fp32 "$text" "$steps"
	train half "$precision" "$text" "$steps"
	losses fp32 > "$work/losses"
	losses half | paste -d ' ' "$work/losses" - | awk -v name="$1" '
		{ d = $2 - $1; d = d < 0 ? -d : d; if (d > worst) { worst = d; at = NR } }
		END { printf "%s: %d steps, loss %s to %s in fp32; largest difference %.2e at step %d (goal: 5e-3)%s\n", name, NR,
			first, $1, worst, at, (worst > 5e-3 ? " MISSED" : "") } NR == 1 { first = $1 }'
	train start fp32 "$text" 10
	train one fp32 "$batch" 1 --set "lora.init=$work/start/adapter" --dump "$work/one.fp32"
	train one "$precision" "$batch" 1 --set "lora.init=$work/start/adapter" --dump "$work/one.half"
	"$python" "$root/bench/bf16.py" "$work/one.fp32/step-00000001.safetensors" "$work/one.half/step-00000001.safetensors" \
		--model "$model" --adapter "$work/start/adapter" --batch "$batch" 2> "$work/errors" ||
		{ cat "$work/errors" >&2; exit 1; }
}

stories() {
	model=$models/stories260K
	for file in "$model/model.safetensors" "$model/tokenizer.model" "$texts/tinystories/tinystories-2MiB.txt"; do
		[ -f "$file" ] || { echo "skipped: stories260K: no '$file' (--models DIR, --texts DIR)"; return 0; }
	done
	tokenize() {
		"$python" "$root/bench/sentencepiece_tokens.py" "$model/tokenizer.model" \
			"$texts/tinystories/tinystories-2MiB.txt" "$@"
	}
	tokenize "$work/stories260K" --train $((8 * steps)) --valid 1
	tokenize "$work/stories260K/batch" --train 8 --valid 1
	compare stories260K
}

capp() {
	model=$models/capp-gpt2
	for file in "$model/model.safetensors" "$model/golden.json"; do
		[ -f "$file" ] || { echo "skipped: capp-gpt2: no '$file' (--models DIR)"; return 0; }
	done
	"$python" - "$root/bench" "$model/golden.json" "$work/capp-gpt2" $((8 * steps)) << 'END'
import itertools, json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from sentencepiece_tokens import write
cases = itertools.cycle(json.load(open(sys.argv[2]))["cases"])
stream, out, rows = [], pathlib.Path(sys.argv[3]), int(sys.argv[4])
while len(stream) < 128 * rows:
    case = next(cases)
    stream += case["prompt"] + case["greedy"]
rows = [stream[128 * i:128 * (i + 1)] for i in range(rows)]
(out / "batch").mkdir(parents=True)
write(out / "train.safetensors", rows)
write(out / "batch" / "train.safetensors", rows[:8])
END
	compare capp-gpt2
}

echo "$(cpu_name); $precision beside fp32, 8 x 128 tokens a step, LoRA of rank 8 on all linears, rate $rate"
stories
capp
