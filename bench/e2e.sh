#!/bin/sh
# Quality beside published numbers: fine-tunes a GPT-2 directory on the E2E NLG set, generates greedily for the inputs of
# its test set, and scores BLEU-4 with sacrebleu on all references.
#
#   sh bench/e2e.sh --model DIR --data DIR
#
#   --model DIR         config.json, model.safetensors, a tokenizer: any that edgepipe trains; GPT-2 for the comparison
#   --data DIR          train.txt.gz, valid.txt, test.txt ("name : X | Type : Y||text" a line) and testset_w_refs.csv
#   --epochs 5          or --steps N
#   --batch 8           sequences a step
#   --sequence 160      tokens; samples are cut there, and counted
#   --rate 2e-4         of learning, linear, with --warmup 500 steps
#   --rank 4            of LoRA on c_attn (q_proj and v_proj), alpha 8 times that, dropout 0.1
#   --inputs 0          of the test set, 0: all 630 or so
#   --tokens 80         at most, of an answer
#   --precision fp32
#   --out DIR           keeps the run, the answers and the references there; a run that was stopped goes on there
#   --build DIR         (default: build/ of this checkout)
#
# Settings are those of Hu et al., "LoRA", 2021, table 11, but for its label smoothing and its beam search. Needs python3 with
# sacrebleu: PEER_PYTHON names one.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

model='' data='' epochs=5 steps='' batch=8 sequence=160 rate=2e-4 warmup=500 rank=4 inputs=0 tokens=80 precision=fp32 out=''
build=$root/build
take_options 'model data epochs steps batch sequence rate warmup rank inputs tokens precision out build' "$@"
need_build
export PYTHONDONTWRITEBYTECODE=1
python=${PEER_PYTHON:-python3}
"$python" -c 'import sacrebleu' 2> "$work/log" || fail "$python has no sacrebleu (pip install sacrebleu; PEER_PYTHON)" 69
[ -f "$model/config.json" ] || fail "no model in '$model' (--model DIR)" 66
for name in train.txt.gz valid.txt test.txt testset_w_refs.csv; do
	[ -f "$data/$name" ] || fail "no '$data/$name' (--data DIR)" 66
done
model=$(cd "$model" && pwd)
[ "$out" ] || out=$work/out
mkdir -p "$out"
length="steps: $steps"
[ "$steps" ] || length="epochs: $epochs"

"$python" "$root/bench/e2e.py" prepare "$data" "$out" "$inputs"
cat > "$out/job.yaml" << END
version: 1
name: e2e
nodes:
  - {name: one}
model: {path: $model}
lora: {rank: $rank, alpha: $((8 * rank)), targets: attention, dropout: 0.1}
data: {train: $out/train.jsonl, valid: $out/valid.jsonl, sequence: $sequence}
train: {batch: $batch, $length, learning_rate: $rate, warmup: $warmup, weight_decay: 0.01, precision: $precision}
END
edgepipe train "$out/job.yaml" --out "$out/run" --resume
edgepipe generate "$out/job.yaml" --adapter "$out/run" --prompts "$out/prompts.jsonl" --tokens "$tokens" \
	--json "$out/answers.json" > "$work/log" || { cat "$work/log" >&2; exit 70; }
"$python" "$root/bench/e2e.py" score "$out"
