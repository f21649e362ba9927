#!/bin/sh
# `edgepipe generate` as people call it: text as it comes, alone and on five ranks over MPI; what it refuses; what happens
# when a rank dies. With EDGEPIPE_SHARED naming a folder of trained models, their golden texts too.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/generate_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
command -v mpirun > /dev/null || { echo "skipped: no mpirun"; exit 77; }
. "$EDGEPIPE_SOURCE/launch/env.sh"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
campus=$(cd "$EDGEPIPE_SOURCE/topologies" && pwd)/campus
five="nodes: [{name: a, cores: 1}, {name: b, cores: 1}, {name: c, cores: 1}, {name: d, cores: 1}, {name: e, cores: 1}]"
cat > "$work/job.yaml" <<EOF
version: 1
$five
model: {path: $campus/model}
plan: {solver: uniform}
EOF

# generates NAME RANKS OPTIONS...: standard output into $work/NAME
generates() {
	name=$1 ranks=$2
	shift 2
	if [ "$ranks" = 1 ]; then
		"$EDGEPIPE" generate "$work/job.yaml" "$@" > "$work/$name" 2> "$work/$name.err" || fail "$name: exit $?"
	else
		timeout 60 mpirun -np "$ranks" "$EDGEPIPE" generate "$work/job.yaml" "$@" > "$work/$name" \
			2> "$work/$name.err" || fail "$name: exit $?"
	fi
}

generates alone 1 --prompt "The library" --tokens 40
generates many 5 --prompt "The library" --tokens 40
cmp -s "$work/alone" "$work/many" || { fail "five ranks say something else"; cat "$work/alone" "$work/many" "$work/many.err"; }
[ "$(wc -c < "$work/alone")" -gt 40 ] || fail "nothing was said"
grep -q "bytes a token" "$work/many.err" || fail "bytes a token are not told"
[ "$(grep -c "bytes a token" "$work/many.err")" = 4 ] || fail "not four links"
grep -q "keys and values of 1 x" "$work/alone.err" || fail "memory is not told"
grep -q "tokens after the first ones" "$work/alone.err" || fail "speed is not told"

# a word of the text as a stop text: it ends there
word=$(tr -s ' \n' '\n\n' < "$work/alone" | sed -n 5p)
generates stopped 1 --prompt "The library" --tokens 40 --stop "$word" --json "$work/stopped.json"
! grep -qF -e "$word" "$work/stopped" || fail "the stop text is written"
printf '%s' "$(cat "$work/stopped")" > "$work/start"
head -c "$(wc -c < "$work/start")" "$work/alone" | cmp -s - "$work/start" || fail "what is before the stop text differs"
grep -q '"finish": "stop"' "$work/stopped.json" || fail "the stop text is not told"
generates stopped5 5 --prompt "The library" --tokens 40 --stop "$word"
cmp -s "$work/stopped" "$work/stopped5" || fail "five ranks stop elsewhere"

# one that begins within a token and ends within another
part=$(cut -c 12-26 "$work/alone" | head -n 1)
generates part 5 --prompt "The library" --tokens 40 --stop "$part" --json "$work/part.json"
head -c 11 "$work/alone" | cmp -s - "$work/part" || printf '%s\n' "$(head -c 11 "$work/alone")" | cmp -s - "$work/part" ||
	fail "what is before \"$part\" differs"
grep -q '"finish": "stop"' "$work/part.json" || fail "\"$part\" does not stop"

# a prompt of several pieces, as many tokens as the model has positions: it says so
long=$(for i in $(seq 24); do printf 'The library is open on day %d. ' "$i"; done)
generates long 1 --prompt "$long" --prompt "The" --tokens 100
generates long5 5 --prompt "$long" --prompt "The" --tokens 100
cmp -s "$work/long" "$work/long5" || { fail "five ranks go on with a long prompt in another way"; cat "$work/long" "$work/long5"; }
grep -q "1 of 2 texts ended before --tokens 100: the model has 256 positions" "$work/long.err" ||
	fail "the end of the positions is not told"

# chats: the same as the text that the template writes, and its end is no part of what is said
generates chat 1 --chat --set data.template=zephyr --system "Be short." --prompt "Where is the library?" --tokens 20
generates text 1 --tokens 20 --prompt "<|system|>
Be short.<|endoftext|>
<|user|>
Where is the library?<|endoftext|>
<|assistant|>
"
cmp -s "$work/chat" "$work/text" || { fail "a chat is not what its template writes"; cat "$work/chat" "$work/text"; }
generates chat5 5 --chat --set data.template=chatml --prompt "Where is the library?" --tokens 20
grep -q "in the template chatml, where <|im_end|> ends an answer" "$work/chat5.err" || fail "the template is not told"
refused "no template" 78 "has no chat_template: name one with data.template" generate "$work/job.yaml" --chat --prompt a
refused "no place for a system message" 65 "--prompt: the template gemma: the template has no place for a system message" \
	generate "$work/job.yaml" --chat --system a --set data.template=gemma --prompt a
refused "a system message alone" 2 "--system TEXT is for --chat" generate "$work/job.yaml" --system a --prompt a
refused "ids in a chat" 2 "--chat is about text" generate "$work/job.yaml" --chat --ids --prompt 1
echo '{"ids": [1]}' > "$work/ids.jsonl"
refused "ids among chats" 65 "$work/ids.jsonl:1" generate "$work/job.yaml" --chat --set data.template=chatml \
	--prompts "$work/ids.jsonl"

# several prompts, drawn: the same on one and on five ranks
printf 'The library\n\nWhere is physics?\r\nThe' | sed '/^$/d' > "$work/prompts.txt"
generates drawn 1 --prompts "$work/prompts.txt" --tokens 20 --temperature 0.9 --top-p 0.9 --seed 4
generates drawn5 5 --prompts "$work/prompts.txt" --tokens 20 --temperature 0.9 --top-p 0.9 --seed 4 --batch 2
cmp -s "$work/drawn" "$work/drawn5" || { fail "five ranks draw something else"; cat "$work/drawn" "$work/drawn5"; }
[ "$(grep -c '^==> prompt' "$work/drawn")" = 3 ] || fail "not three titles"
status=0
"$EDGEPIPE" generate "$work/job.yaml" --prompt a --tokens 2 > /dev/full 2> "$work/stderr" || status=$?
[ $status = 74 ] && [ "$(grep -c 'error: cannot write to standard output: No space left on device' "$work/stderr")" = 1 ] ||
	fail "a full disk behind standard output: exit $status"
generates likeliest 1 --prompt "The library" --tokens 40 --top-p 0
cmp -s "$work/alone" "$work/likeliest" || fail "--top-p 0 does not take the likeliest"
generates other 1 --prompts "$work/prompts.txt" --tokens 20 --temperature 0.9 --top-p 0.9 --seed 5
! cmp -s "$work/drawn" "$work/other" || fail "another seed draws the same"
generates precise 5 --prompt "The library" --tokens 10 --set train.precision=bf16

refused "no prompt" 2 "--prompt TEXT or --prompts FILE is missing" generate "$work/job.yaml"
refused "a prompt without option" 2 "a prompt needs --prompt" generate "$work/job.yaml" Hello
refused "an option" 2 "did you mean '--top-p'?" generate "$work/job.yaml" --prompt a --topp 1
refused "a number" 2 "'x' is not a whole number" generate "$work/job.yaml" --prompt a --tokens x
refused "a share" 2 "'2' is not a number in 0..1" generate "$work/job.yaml" --prompt a --top-p 2
refused "an empty prompt" 65 "the prompt is empty" generate "$work/job.yaml" --prompt ""
refused "no id" 65 '"hello" is not a token id' generate "$work/job.yaml" --ids --prompt "1 hello"
refused "an id out of range" 65 "id 99999 is not in 0.." generate "$work/job.yaml" --ids --prompt "1 99999"
echo '{"ids": [1, 4294967297]}' > "$work/large.jsonl"
refused "an id above 32 bits" 65 "$work/large.jsonl:1:9: error: item 1 of \"ids\" is not in 0.." \
	generate "$work/job.yaml" --prompts "$work/large.jsonl"
printf 'The\nab\377c\n' > "$work/bytes.txt"
refused "bytes that are no text" 65 "$work/bytes.txt:2:3: error: 0xFF is not UTF-8" \
	generate "$work/job.yaml" --prompts "$work/bytes.txt"
echo '{"messages": []}' > "$work/chats.jsonl"
refused "no prompt in a line" 65 'there is no "prompt", "text" or "ids"' generate "$work/job.yaml" \
	--prompts "$work/chats.jsonl"
refused "JSON among the text" 2 "standard output has the text" generate "$work/job.yaml" --prompt a --json -
echo '{"text": 5}' > "$work/wrong.jsonl"
refused "a wrong line" 65 "$work/wrong.jsonl:1" generate "$work/job.yaml" --prompts "$work/wrong.jsonl"
printf 'The\r\n\r\nWhere\n' > "$work/gap.txt"
refused "an empty line" 65 "$work/gap.txt:2:1: error: the line is empty" generate "$work/job.yaml" --prompts "$work/gap.txt"
printf '{"text": "The"}\n\n{"text": "Where"}\n' > "$work/gap.jsonl"
refused "an empty line of JSON" 65 "$work/gap.jsonl:2:1: error: the line is empty" \
	generate "$work/job.yaml" --prompts "$work/gap.jsonl"
printf '\357\273\277The library\r\n\r\n\n' > "$work/marked.txt"
printf '\357\273\277{"text": "The library"}\r\n\r\n\n' > "$work/marked.jsonl"
for marked in marked.txt marked.jsonl; do
	generates marked 1 --prompts "$work/$marked" --tokens 40
	cmp -s "$work/alone" "$work/marked" || fail "$marked: the mark or the lines at the end matter"
done
refused "no such file" 66 "$work/none.txt" generate "$work/job.yaml" --prompts "$work/none.txt"

# keys and values that no memory holds: the numbers, and what would fit
# (the process itself takes some, with a sanitizer a lot more: the first time says how much)
yes "The library" | head -n 4000 > "$work/many.txt"
for memory in 8 fitting; do
	[ $memory = 8 ] || memory=$(($(sed -n 's/.*rest \([0-9]*\).* MiB$/\1/p' "$work/stderr") + 60))
	sed "s/.*nodes:.*/nodes: [{name: a, memory: $memory MiB}]/" "$work/job.yaml" > "$work/small.yaml"
	words="what fits: --batch"
	[ $memory != 8 ] || words="not even one token fits"
	refused "too much memory" 78 "$words" generate "$work/small.yaml" --prompts "$work/many.txt" --batch 4000
	grep -q "needs .* of $memory[.0]* MiB: weights" "$work/stderr" || fail "memory: no numbers"
done

# a rank that dies ends all
timeout 60 mpirun -np 5 "$EDGEPIPE" generate "$work/job.yaml" --prompts "$work/many.txt" --tokens 50 \
	> "$work/dead" 2> "$work/dead.err" &
runner=$!
tries=0
while [ ! -s "$work/dead" ] && [ $tries -lt 500 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
victim=$(pgrep -P "$runner" -f 'mpirun -np 5' || echo "$runner")
victim=$(pgrep -P "$victim" -n -x edgepipe || true)
if [ -n "$victim" ]; then
	kill -9 "$victim"
	status=0
	wait "$runner" || status=$?
	[ $status != 0 ] && [ $status != 124 ] || fail "a dead rank: exit $status"
else
	fail "there was no rank to kill"
	kill "$runner" || true
	wait "$runner" || true
fi

if [ -d "${EDGEPIPE_SHARED:-/nonexistent}/data/models/stories260K" ]; then
	models=$EDGEPIPE_SHARED/data/models
	sed "s|$campus/model|$models/stories260K|" "$work/job.yaml" > "$work/stories.yaml"
	for ranks in 1 5; do
		timeout 60 mpirun -np $ranks "$EDGEPIPE" generate "$work/stories.yaml" --ids --prompt 1 --tokens 120 \
			> "$work/stories" 2> "$work/stories.err" || fail "stories260K on $ranks: exit $?"
		python3 - "$models/stories260K/golden.json" "$work/stories" <<'EOF' || fail "stories260K on $ranks: not golden"
import json, sys
golden = json.load(open(sys.argv[1]))["greedy_from_bos"]
assert [int(i) for i in open(sys.argv[2]).read().split()] == golden[:120], golden
EOF
	done
	sed "s|$campus/model|$models/capp-gpt2|" "$work/job.yaml" > "$work/capp.yaml"
	python3 -c 'import json, sys
for c in json.load(open(sys.argv[1]))["cases"]: print(json.dumps({"ids": c["prompt"]}))' \
		"$models/capp-gpt2/golden.json" > "$work/capp.jsonl"
	for ranks in 1 5; do
		timeout 60 mpirun -np $ranks "$EDGEPIPE" generate "$work/capp.yaml" --ids --prompts "$work/capp.jsonl" --tokens 24 \
			> "$work/capp" 2> "$work/capp.err" || fail "capp-gpt2 on $ranks: exit $?"
		python3 - "$models/capp-gpt2/golden.json" "$work/capp" <<'EOF' || fail "capp-gpt2 on $ranks: not golden"
import json, sys
golden = [c["greedy"] for c in json.load(open(sys.argv[1]))["cases"]]
assert [[int(i) for i in line.split()] for line in open(sys.argv[2])] == golden, golden
EOF
	done
else
	echo "skipped: golden texts of trained models (EDGEPIPE_SHARED names no folder with them)"
fi
finish
