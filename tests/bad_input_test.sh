#!/bin/sh
# Bad input: one clear message, the right exit code, no hang, nothing half-written. Each case runs under a real mpirun
# with two ranks (or as said), and must end within a minute.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/bad_input_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
# mpirun would wait for a second each time before it kills what is left of a job: here all ranks end by themselves.
export OMPI_MCA_odls_base_sigkill_timeout=0
golden=$(cd "$EDGEPIPE_SOURCE/tests/golden" && pwd)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

cat > "$work/job.yaml" << END
version: 1
nodes:
  - {name: a, cores: 1}
  - {name: b, cores: 1}
model: {path: $golden/gpt2/model}
lora: {rank: 4, targets: all}
data: {train: $golden/gpt2/batches.safetensors}
train: {batch: 4, steps: 2, learning_rate: 1e-3}
END

# refused NAME CODE WORDS OPTIONS...: two ranks must end with CODE and say WORDS, once
refused() {
	name=$1 code=$2 words=$3
	shift 3
	status=0
	timeout 60 mpirun -np "${ranks:-2}" "$EDGEPIPE" train "${file:-$work/job.yaml}" --out "$work/out" "$@" \
		> "$work/stdout" 2> "$work/stderr" || status=$?
	said=$(grep -cF -e "$words" "$work/stderr" || true)
	left=$(ls -A "$work/out" 2> /dev/null || true)
	if [ $status != "$code" ] || [ "$said" != 1 ] || [ -n "$left" ]; then
		fail "$name: exit $status instead of $code, \"$words\" said $said times, left: $left"
		sed 's/^/    /' "$work/stderr"
	else
		echo "ok     $name"
	fi
	rm -rf "$work/out"
}

# broken NAME CODE WORDS MODEL: with a model directory of its own
broken() {
	refused "$1" "$2" "$3" --set "model.path=$4"
}

# copy CASE: a model directory to break
copy() {
	rm -rf "$work/model"
	cp -r "$golden/$1/model" "$work/model"
}

file=$work/none.yaml refused "missing topology file" 66 "none.yaml"
broken "missing model" 66 "nowhere" "$work/nowhere"
copy gpt2
head -c 20000 "$golden/gpt2/model/model.safetensors" > "$work/model/model.safetensors"
broken "truncated safetensors" 65 "model.safetensors" "$work/model"
copy gpt2
printf '\377\377\377\377\377\377\377\177{' > "$work/model/model.safetensors"
broken "lying safetensors" 65 "model.safetensors" "$work/model"
copy gpt2
sed -i 's/"model_type": "gpt2"/"model_type": "mamba"/; s/GPT2LMHeadModel/MambaForCausalLM/' "$work/model/config.json"
broken "unknown architecture" 65 "mamba" "$work/model"
copy gpt2
sed -i 's/"n_inner": null/"n_inner": 48/' "$work/model/config.json"
broken "a tensor of a wrong shape" 65 "mlp.c_fc" "$work/model"
copy gpt2
sed -i 's/"vocab_size": 41/"vocab_size": 43/' "$work/model/config.json"
broken "vocabulary mismatch" 65 "wte" "$work/model"
copy gpt2
sed -i 's/"scale_attn_by_inverse_layer_idx": false/"scale_attn_by_inverse_layer_idx": true/' "$work/model/config.json"
broken "arithmetic that is not built" 78 "scale_attn_by_inverse_layer_idx" "$work/model"

cp -r "$golden/tokenizer" "$work/texts"
copy gpt2
cp "$golden/tokenizer/tokenizer.json" "$work/model/"
printf '{"text": "a b"\n{"text": "c d"}\n' > "$work/broken.jsonl"
refused "a broken line of data" 65 "broken.jsonl:1:" --set "data.train=$work/broken.jsonl" --set "model.path=$work/model" --set data.sequence=8
printf 'words' > "$work/data.csv"
refused "an unknown kind of data" 78 "data.csv" --set "data.train=$work/data.csv"
refused "missing data" 66 "gone.jsonl" --set "data.train=$work/gone.jsonl"
refused "LoRA target that matches nothing" 78 "c_atn" --set lora.targets=c_atn
refused "LoRA on the head" 78 "lm_head" --set lora.targets=lm_head
refused "LoRA on the embedding" 78 "wte" --set lora.targets=wte
refused "a sequence above the model's positions" 78 "positions" --set data.sequence=17
ranks=3 refused "a wrong -np" 78 "mpirun -np 2"
refused "more stages than nodes" 78 "stages" --set plan.stages=7
refused "layers that do not add up" 78 "plan.layers" --set 'plan.layers=[3,3]'
refused "memory that does not suffice" 78 "MiB" --set nodes.1.memory=2MiB --set plan.solver=uniform
refused "memory that suffices nowhere" 78 "no node holds even the process" --set nodes.0.memory=2MiB --set nodes.1.memory=2MiB \
	--set nodes.0.compute=1GFLOPS --set nodes.1.compute=1GFLOPS
refused "a micro-batch that does not divide the batch" 78 "micro_batch" --set train.micro_batch=3
refused "a bare number" 78 "GiB" --set nodes.0.memory=4
refused "an unknown key" 78 "learning_rate" --set train.learning_rat=1
refused "bf16 by a library that multiplies none" 78 "multiplies fp32 alone" --set train.precision=bf16 --set train.kernels=openblas
refused "a codec inside a rank that nobody chooses" 78 '"auto" is none of' --set "plan.cuts=[{after_block: 1, codec: auto}]"
refused "an unknown solver" 78 'did you mean "exact"' --set plan.solver=exakt
refused "an unknown codec" 78 "int8" --set links.default.codec=int7
refused "a bandwidth of zero" 78 "links.default.bandwidth" --set "links.default.bandwidth=0 Mbit/s"
cut() {
	refused "$1" 78 "$2" --set "plan.layers=[3,2]" --set "plan.cuts=[{after_block: $3, codec: int8}]"
}
cut "a cut beyond the blocks" "there is no block 5" 5
cut "a cut where a stage ends" "block 2 is the last of node" 2
cut "a cut below the blocks" "plan.cuts[0].after_block" -1
refused "emulated compute that is not declared" 78 "nodes[0] declares no compute" --set emulate.compute=true
refused "a slowdown of zero" 78 "emulate.slowdown" --set emulate.slowdown=0
# trace NAME CODE WORDS ROWS: with this file as the bandwidth over time
trace() {
	printf "$4" > "$work/trace.csv"
	refused "$1" "$2" "$3" --set "links.between=[{nodes: [a, b], trace: $work/trace.csv}]" --set emulate.links=true
}
trace "a trace with a gap" 65 "trace.csv:3:" 'seconds,mbit_s\n0,10\n2,10\n'
trace "a trace with a rate of zero" 65 "trace.csv:2:" '0,10\n1,0\n'
trace "a trace without rows" 65 "trace.csv:" 'seconds,mbit_s\n'
refused "a missing trace" 66 "gone.csv" --set "links.between=[{nodes: [a, b], trace: $work/gone.csv}]" \
	--set emulate.links=true
refused "a trace that nobody follows" 78 "emulate.links" --set "links.between=[{nodes: [a, b], trace: $work/trace.csv}]"
refused "what is not built: clients" 78 "clients are simulated by compare" --set nodes.0.role=client
refused "what is not built: cuda" 78 "cuda" --set nodes.0.device=cuda:0
refused "an unknown option" 2 "--overwrite" --overwritte
refused "--resume with --overwrite" 2 "exclude" --resume --overwrite

printf 'file' > "$work/plain"
out=$work/plain/sub
status=0
timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$out" 2> "$work/stderr" > /dev/null || status=$?
[ $status = 73 ] || fail "an output directory that cannot be made: exit $status"

timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$work/run" > /dev/null
before=$(cat "$work/run/metrics.jsonl" "$work/run/adapter/"* | cksum)
status=0
timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$work/run" 2> "$work/stderr" > /dev/null || status=$?
after=$(cat "$work/run/metrics.jsonl" "$work/run/adapter/"* | cksum)
if [ $status != 73 ] || [ "$before" != "$after" ] || ! grep -q -e --resume "$work/stderr"; then
	fail "a directory that holds a run: exit $status"
else
	echo "ok     a directory that holds a run"
fi

# Another precision is other arithmetic: a resumed run says so.
timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$work/run" --resume --set train.precision=bf16 \
	2> "$work/stderr" > /dev/null || fail "another precision: exit $?"
if [ "$(grep -c '"precision" was fp32 there and is bf16 now' "$work/stderr")" = 1 ]; then
	echo "ok     another precision"
else
	fail "another precision is not warned of"
	cat "$work/stderr"
fi

# Damaged checkpoints: named and skipped while one verifies, 65 when none does.
for step in "$work/run/ckpt/"step-*; do
	damage "$step/state.safetensors" 300
done
status=0
timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$work/run" --resume 2> "$work/stderr" > /dev/null || status=$?
if [ $status != 65 ] || ! grep -q 'step-00000002' "$work/stderr"; then
	fail "damaged checkpoints: exit $status"
	cat "$work/stderr"
else
	echo "ok     damaged checkpoints"
fi

# Divergence: an infinite rate must end with 79 and keep the last good checkpoint.
status=0
timeout 60 mpirun -np 2 "$EDGEPIPE" train "$work/job.yaml" --out "$work/diverged" --set train.learning_rate=1000 \
	--set train.steps=300 --set train.checkpoint_every=1 2> "$work/stderr" > /dev/null || status=$?
if [ $status != 79 ] || [ ! -e "$work/diverged/ckpt/step-00000001" ] || [ -e "$work/diverged/adapter" ]; then
	fail "divergence: exit $status"
	cat "$work/stderr"
else
	echo "ok     divergence"
fi
finish
