#!/bin/sh
# What codecs cost in quality: fine-tunes trained models on text with cuts of each codec, everything else the same, and
# compares the validation losses at the end. The cuts are inside one rank (plan.cuts), which gives the same bits as links
# between ranks would, and validation passes them too; "bare" is the loss of the finished adapter where no cut loses
# anything, as for whoever loads it.
#
#   sh bench/quality.sh --models DIR --texts DIR
#
#   --models DIR        holds stories260K: a trained LLaMA of five blocks, 64 wide (config.json, model.safetensors,
#                       tokenizer.model)
#   --texts DIR         holds tinystories/tinystories-2MiB.txt, tinyshakespeare/input.txt, wikitext-2/valid.txt
#   --steps 200         of 8 sequences of 128 tokens
#   --seed 1            the next two show, without a codec, what chance alone does
#   --build DIR         (default: build/ of this checkout)
#
# The model of topologies/campus is always one of them; the others are skipped where their files are not there. Needs
# python3 for the text of the others.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/bench/common.sh"

models='' texts='' steps=200 first_seed=1 build=$root/build
take_options 'models texts steps seed=first_seed build' "$@"

need_build

# topology SEED CODEC MODEL TRAIN VALID SEQUENCE RATE BLOCK...: writes $work/job.yaml, with a cut behind each of the blocks
topology() {
	seed=$1 codec=$2 model=$3 train=$4 valid=$5 sequence=$6 rate=$7
	shift 7
	cuts=$(for block in "$@"; do printf '{after_block: %s, codec: %s}, ' "$block" "$codec"; done)
	cat > "$work/job.yaml" << END
version: 1
name: quality
nodes:
  - {name: one}
model: {path: $model}
lora: {rank: 8, alpha: 16, targets: all${init:+, init: $init}}
data: {train: $train, valid: $valid$sequence}
train: {batch: 8, micro_batch: 8, steps: $steps, learning_rate: $rate, warmup: 10, seed: $seed, checkpoint_every: 0}
plan: {cuts: [${cuts%, }]}
END
}

# run OUT: validation losses of $work/job.yaml, before and after
run() {
	"$build/edgepipe" train "$work/job.yaml" --out "$work/$1" --overwrite > "$work/log" 2>&1 ||
		{ cat "$work/log" >&2; exit 1; }
	grep '"kind":"valid"' "$work/$1/metrics.jsonl" | json_numbers loss
}

# compare NAME MODEL TRAIN VALID SEQUENCE RATE BLOCK...: the first block is that of one cut
compare() {
	name=$1 reference=''
	model=$2 train=$3 valid=$4 sequence=$5 rate=$6
	shift 6
	for case in 'none 0' 'bf16 3' 'int8 3' 'int4 3' 'int8 1' 'int4 1' "none 0 $((first_seed + 1))" "none 0 $((first_seed + 2))"; do
		kind=${case%% *}
		many=$(echo "$case" | cut -d ' ' -f 2)
		chance=$(echo "$case $first_seed" | cut -d ' ' -f 3)
		blocks=$*
		[ "$many" != 1 ] || blocks=$1
		init=''
		# shellcheck disable=SC2086
		topology "$chance" "$kind" "$model" "$train" "$valid" "$sequence" "$rate" $blocks
		losses=$(run run)
		init=$work/run/adapter
		topology "$chance" none "$model" "$train" "$valid" "$sequence" "$rate" 0
		bare=$(sed -i "s/steps: $steps/steps: 1/" "$work/job.yaml" && run bare | head -n 1)
		[ "$reference" ] || reference=$bare
		echo "$losses" | tr '\n' ' ' | awk -v name="$name" -v codec="$kind" -v cuts="$many" -v seed="$chance" \
			-v bare="$bare" -v of="$reference" '{
			printf "%-28s %-5s %4d %4d %9.5f %9.5f %+8.3f %% %9.5f %+8.3f %%\n", name, codec, cuts, seed, $1, $2,
				100 * ($2 - of) / of, bare, 100 * (bare - of) / of }'
	done
}

# stories NAME TEXT: stories260K on that text
stories() {
	if [ ! -f "$models/stories260K/model.safetensors" ] || [ ! -f "$models/stories260K/tokenizer.model" ]; then
		echo "skipped: stories260K on $1: '$models/stories260K' (--models DIR) lacks the model or its tokenizer"
	elif [ ! -f "$texts/$2" ]; then
		echo "skipped: stories260K on $1: no '$texts/$2' (--texts DIR)"
	elif ! command -v python3 > "$work/log"; then
		echo "skipped: stories260K on $1: no python3"
	else
		PYTHONDONTWRITEBYTECODE=1 python3 "$root/bench/sentencepiece_tokens.py" \
			"$models/stories260K/tokenizer.model" "$texts/$2" "$work/$1" --train $((8 * steps)) --valid 150
		compare "stories260K on $1" "$models/stories260K" "$work/$1/train.safetensors" \
			"$work/$1/valid.safetensors" '' 2e-3 0 2 3
	fi
}

[ ! "$models" ] || models=$(cd "$models" && pwd) || fail "no folder '$models'" 66
[ ! "$texts" ] || texts=$(cd "$texts" && pwd) || fail "no folder '$texts'" 66
echo "$steps steps; validation loss before and after, and of the adapter without the codec (goal: int8 within 0.5 %, int4 1 %)"
printf '%-28s %-5s %4s %4s %9s %9s %10s %9s %10s\n' model codec cuts seed before after 'to none' bare 'to none'
campus=$root/topologies/campus
compare 'campus on its questions' "$campus/model" "$campus/train.jsonl" "$campus/valid.jsonl" ', sequence: 64' 1e-2 2 5 7
stories tinystories tinystories/tinystories-2MiB.txt
stories tinyshakespeare tinyshakespeare/input.txt
stories wikitext-2 wikitext-2/valid.txt
