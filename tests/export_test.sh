#!/bin/sh
# `edgepipe export`: an adapter of a run, of a checkpoint, of a directory; what is refused; and where Python has
# torch, transformers and peft (python3, or PEER_PYTHON), their logits beside those that edgepipe dumps.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/export_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
goldens=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)
checkout=$(cd "$EDGEPIPE_SOURCE" && pwd)
python=${PEER_PYTHON:-python3}
compare=true
"$python" -c 'import torch, transformers, peft, safetensors' 2> /dev/null || {
	echo "skipped: logits beside peft's, as $python has not all of torch, transformers, peft, safetensors"
	compare=false
}
cd "$work"

# job NAME: a job on a golden model, into NAME.yaml
job() {
	cat > "$1.yaml" << EOF
version: 1
nodes: [{name: n0, cores: 1}]
model: {path: $goldens/$1/model}
lora: {init: $goldens/$1/initial}
data: {train: $goldens/$1/batches.safetensors, shuffle: false}
train: {batch: 4, micro_batch: 2, steps: 4, learning_rate: 1e-2, checkpoint_every: 2}
plan: {solver: uniform}
EOF
}

# does NAME COMMAND ARGUMENTS...: it must succeed
does() {
	title=$1
	shift
	"$@" > "$work/log" 2>&1 || { fail "$title"; sed 's/^/    /' "$work/log"; }
}

# logits NAME ADAPTER: what edgepipe computes with an adapter, and peft with the same
logits() {
	$compare || return 0
	rm -rf dump
	does "$1 with $2" "$EDGEPIPE" train "$1.yaml" --out "logits" --overwrite --set train.steps=1 \
		--set "lora.init=$2" --dump dump
	does "logits of $1 with $2" "$python" "$checkout/tests/peft_logits.py" "$goldens/$1/model" "$2" \
		"$goldens/$1/batches.safetensors" dump/step-00000001.safetensors
}

for name in gpt2 llama3 gpt2-pattern qwen2-pattern; do
	job $name
	does "$name trains" "$EDGEPIPE" train $name.yaml --out $name
	does "$name exports" "$EDGEPIPE" export $name --format peft --out "$name-peft"
	cmp $name-peft/adapter_model.safetensors $name/adapter/adapter_model.safetensors ||
		fail "$name: an export of a run is not its adapter"
	logits $name $name-peft
done

# a checkpoint; the newest one where a run has no adapter yet
does "a step exports" "$EDGEPIPE" export gpt2/ --format peft --step 2
[ -f gpt2-step-2-peft/adapter_model.safetensors ] || fail "the standard name of a step's export"
! cmp -s gpt2-step-2-peft/adapter_model.safetensors gpt2-peft/adapter_model.safetensors ||
	fail "step 2 is step 4"
logits gpt2 gpt2-step-2-peft
cp -r gpt2 killed
rm -r killed/adapter
mkdir killed/ckpt/step-00000009.tmp-1
does "a killed run exports" "$EDGEPIPE" export killed --format peft
cmp killed-peft/adapter_model.safetensors gpt2-peft/adapter_model.safetensors || fail "not the newest checkpoint"
[ -d killed/ckpt/step-00000009.tmp-1 ] || fail "export touches a run's files"
damage killed/ckpt/step-00000004/state.safetensors 2000
refused "a damaged checkpoint" 65 "can be used" export killed --format peft --step 4 --out no
does "before a damaged checkpoint" "$EDGEPIPE" export killed --format peft --overwrite
cmp killed-peft/adapter_model.safetensors gpt2-step-2-peft/adapter_model.safetensors ||
	fail "a damaged checkpoint is not skipped"

# the README.md of an adapter: what it is, the samples, the figures up to its step
for words in "For the gpt2 model" "Rank 4, alpha 8" "| steps | 2 of 4, 4 sequences of 12 tokens" "| tokens | 96 |" \
	"| loss | 4." "\`n0\` blocks 0 to 4" "no tokenizer lies beside"; do
	grep -qF "$words" gpt2-step-2-peft/README.md || fail "the README.md of step 2 does not say \"$words\""
done
grep -qF "| steps | 4 of 4" gpt2/adapter/README.md || fail "the README.md of the end"
cmp gpt2-peft/README.md gpt2/adapter/README.md || fail "an export has another README.md than its run"

# samples as text, where there is a tokenizer; what is trained on stands between marks
cat > text.jsonl << EOF
{"prompt": "Where is the library?", "completion": " In the tower."}
EOF
cat > text.yaml << EOF
version: 1
nodes: [{name: n0, cores: 1}]
model: {path: $checkout/topologies/campus/model}
data: {train: text.jsonl, sequence: 32}
train: {batch: 1, steps: 1}
EOF
does "text trains" "$EDGEPIPE" train text.yaml --out text
for words in "Where is the library?⟦ In the tower." "the chat template is \`none\`"; do
	grep -qF "$words" text/adapter/README.md || fail "the README.md of text does not say \"$words\""
done

# nothing in a sample or a name ends the place that it stands in
cat > 'odd`|<b>.jsonl' << 'EOF'
{"prompt": "```\n</pre><script>\n# Head\r\n\n| a | b |\n---\n", "completion": "```\n~~~\n\u0000\u2028<!-- \u27e7"}
{"prompt": "\n\n", "completion": "- item\n\n\t1. item\u001b[31m"}
{"prompt": "Third", "completion": "."}
{"prompt": "Fourth", "completion": "."}
EOF
sed 's/train: text.jsonl/train: "odd`|<b>.jsonl"/; s/name: n0/name: "n`|0"/; s/sequence: 32/sequence: 96/' text.yaml > odd.yaml
does "odd text trains" "$EDGEPIPE" train odd.yaml --out odd
sed '/^    /d' odd/adapter/README.md > rest
iconv -f UTF-8 -t UTF-8 odd/adapter/README.md > all || fail "the README.md of odd text is not UTF-8"
[ "$(grep -c '^Sample [123]:$' rest)" = 3 ] || fail "three samples"
[ "$(grep -n -e '```' rest | cut -d: -f2-)" = '```python
```' ] || fail "fences in the README.md of odd text: $(grep -n -e '```' rest)"
grep -q -e 'Fourth' -e 'script' -e '^# Head' -e '^- item' rest && fail "text of samples in the README.md's own"
for words in 'odd\x60\x7c<b>.jsonl`' '`n\x60\x7c0` blocks' '# Head\x0d' '\x1b[31m'; do
	grep -qF "$words" odd/adapter/README.md || fail "the README.md of odd text does not say \"$words\""
done

# an adapter of others, whose base is elsewhere
cp -r "$goldens/gpt2/initial" friend
refused "no base" 66 "name its directory with --model" export friend --format peft
does "a friend's adapter exports" "$EDGEPIPE" export friend --model "$goldens/gpt2/model" --format peft
refused "another model's adapter" 78 "c_attn" export friend --model "$goldens/llama3/model" --format peft --out no
refused "another size's adapter" 65 "ask for" export friend --model "$goldens/gpt2-exact/model" --format peft --out no
logits gpt2 friend-peft

# merged: the tensors' types and shards, the other files, logits
for name in gpt2 qwen3-long gpt2-pattern; do
	does "$name merges" "$EDGEPIPE" export "$goldens/$name/initial" --model "$goldens/$name/model" --format merged \
		--out "$name-merged"
	cmp "$goldens/$name/model/config.json" "$name-merged/config.json" || fail "$name: config.json is not copied"
	[ ! -e "$name-merged/model.safetensors.index.json" ] || fail "$name: an index of one file"
	$compare || continue
	rm -rf dump
	[ -e "$name.yaml" ] || job "$name"
	does "$name with its adapter" "$EDGEPIPE" train "$name.yaml" --out logits --overwrite --set train.steps=1 --dump dump
	# numbers of a BF16 model are rounded once more
	most=1e-4
	[ $name != qwen3-long ] || most=0.5
	does "logits of $name merged" "$python" "$checkout/tests/peft_logits.py" "$name-merged" - \
		"$goldens/$name/batches.safetensors" dump/step-00000001.safetensors $most
done
cp -r "$goldens/gpt2/model" model
mkdir model/folder
touch model/pytorch_model.bin model/tokenizer.model model/.hidden
ln -s config.json model/generation_config.json
does "in shards" "$EDGEPIPE" export friend --model model --format merged --shard-size "40 kB"
[ "$(ls friend-merged)" = "config.json
generation_config.json
model-00001-of-00003.safetensors
model-00002-of-00003.safetensors
model-00003-of-00003.safetensors
model.safetensors.index.json
tokenizer.model" ] || fail "files of a merged model: $(ls friend-merged)"
does "again, of one file" "$EDGEPIPE" export friend --model model --format merged --overwrite
cmp friend-merged/model.safetensors gpt2-merged/model.safetensors || fail "shards were left, or other bytes"
# shards are read back by edgepipe itself
does "shards" "$EDGEPIPE" export friend --model model --format merged --shard-size "40 kB" --out shards
does "shards train" "$EDGEPIPE" train gpt2.yaml --out logits --overwrite --set model.path=shards --set train.steps=1
does "one file trains" "$EDGEPIPE" train gpt2.yaml --out again --overwrite --set model.path=friend-merged \
	--set train.steps=1
[ "$(sed -n 's/.*"kind":"step".*"loss":\([^,]*\).*/\1/p' logits/metrics.jsonl)" = \
	"$(sed -n 's/.*"kind":"step".*"loss":\([^,]*\).*/\1/p' again/metrics.jsonl)" ] || fail "shards hold other numbers"
refused "the model itself" 73 "read here" export friend --model model --format merged --out model --overwrite
refused "a folder around it" 73 "read here" export friend --model model --format merged --out . --overwrite
refused "no model" 73 "is not a model" export friend --model model --format merged --out gpt2-peft --overwrite
refused "a size without a unit" 2 "--shard-size" export friend --model model --format merged --shard-size 40

# a base that is not what it was
cp -r "$goldens/gpt2-exact/model" base
job gpt2-exact
sed -i "s#path: .*/model}#path: base}#" gpt2-exact.yaml
does "another run" "$EDGEPIPE" train gpt2-exact.yaml --out based
does "its base as it was" "$EDGEPIPE" export based --format merged
printf '\001' | dd of=base/model.safetensors bs=1 seek=$(($(wc -c < base/model.safetensors) - 4)) conv=notrunc 2> /dev/null
refused "other weights" 78 "are not those that 'based' was trained on" export based --format merged --out no
does "other weights by name" "$EDGEPIPE" export based --format merged --model base --out named
grep -q "warning: the weights in '.*base' are not those" log || fail "no word about other weights"
does "peft without the weights" "$EDGEPIPE" export based --format peft
echo >> base/config.json
does "another config.json" "$EDGEPIPE" export based --format peft --overwrite
grep -q "warning: .*base/config.json' is not what it was" log || fail "no word about another config.json"
mv base elsewhere
refused "no base there" 66 "name one with --model" export based --format merged --out no

# what other tools ask for
"$EDGEPIPE" export gpt2-pattern --format peft --out ranks 2>&1 | grep -q "rank_pattern" || fail "no word about patterns"
sed 's/^lora: .*/lora: {rank: 17, targets: c_fc}/' gpt2.yaml > wide.yaml
does "rank 17" "$EDGEPIPE" train wide.yaml --out wide --set train.steps=1
"$EDGEPIPE" export wide --format peft 2>&1 | grep -q -e "--max-lora-rank" || fail "no word about rank 17"

# what is refused
refused "no source" 2 "which run or adapter" export --format peft
refused "no format" 2 "which --format" export gpt2
refused "another format" 2 "did you mean 'peft'" export gpt2 --format pefd
refused "an option" 2 "did you mean '--format'" export gpt2 --fromat peft
refused "a step that is none" 2 "needs a number" export gpt2 --format peft --step 2x
refused "a step of an adapter" 2 "--step is for runs" export friend --format peft --step 2
refused "a step that is not there" 66 "there are: 4, 2" export gpt2 --format peft --step 3 --out no
refused "nothing there" 66 "cannot find 'nowhere'" export nowhere --format peft
mkdir empty
refused "neither" 66 "neither a run" export empty --format peft
refused "what exists" 73 "--overwrite" export gpt2 --format peft --out gpt2-peft
refused "the run itself" 73 "read here" export gpt2 --format peft --out gpt2 --overwrite
refused "what is no adapter" 73 "is not an adapter" export gpt2 --format peft --out killed --overwrite
refused "a folder that cannot be" 73 "cannot create" export gpt2 --format peft --out gpt2.yaml/x
[ ! -e no ] && [ ! -e no.tmp ] || fail "something was written"
ls -d ./*.tmp 2> /dev/null && fail "something was left"
finish
