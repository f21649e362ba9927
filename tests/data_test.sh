#!/bin/sh
# `edgepipe data show` and `edgepipe data check`: what they print, how they end, and that training finds again what they
# tokenised.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. EDGEPIPE_BUILD=build sh tests/data_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}" "${EDGEPIPE_BUILD:?its build folder}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
campus=$EDGEPIPE_SOURCE/topologies/campus.yaml
unset NO_COLOR || true
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME

# prints NAME CODE WORDS ARGUMENTS...: the program must end with CODE and say WORDS on standard output
prints() {
	name=$1 code=$2 words=$3
	shift 3
	status=0
	"$EDGEPIPE" "$@" > "$work/stdout" 2> "$work/stderr" || status=$?
	if [ $status != "$code" ] || ! grep -qF -e "$words" "$work/stdout"; then
		fail "$name: exit $status instead of $code, or \"$words\" is not printed"
		sed 's/^/    /' "$work/stdout" "$work/stderr"
	fi
}

# printed NAME PATTERN COUNT: so many lines of the last output match
printed() {
	count=$(grep -c -e "$2" "$work/stdout" || true)
	[ "$count" = "$3" ] || fail "$1: $count lines match '$2', not $3"
}

prints "show" 0 'Answer:[ The glass hall closes at 22:00 on weekdays.<|endoftext|>]' data show "$campus" -n 2
printed "show" '^-- sample' 2
if grep -q "$(printf '\033')" "$work/stdout"; then fail "colours without a terminal"; fi
prints "show from" 0 'sample 3039:' data show "$campus" --from 3038
printed "show from" '^-- sample' 2
prints "show ids" 0 '"Question"' data show "$campus" -n 1 --ids
printed "show ids" ' trained ' 12
printed "show the special token" ' trained special  "<|endoftext|>"' 1
prints "show json" 0 '{"sample": 0, "ids": [332, 26, ' data show "$campus" -n 1 --json
prints "show valid" 0 'valid.jsonl: 228 samples' data show "$campus" -n 1 --valid
refused "show nothing" 2 'topology file is missing' data show
refused "show beyond" 2 'there are 3040 samples' data show "$campus" --from 3040
refused "show zero" 2 "-n '0'" data show "$campus" -n 0
refused "show a wrong option" 2 "'--ids'" data show "$campus" --idz
refused "show what is not there" 66 'nowhere.yaml' data show "$work/nowhere.yaml"
refused "show in a template that is unknown" 78 'did you mean "chatml"' data show "$campus" --set data.template=chatlm
refused "keep where nothing can be" 78 'neither none nor a path from the root' data show "$campus" --set data.cache=here

cat > "$work/chat.jsonl" << 'END'
{"messages": [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Hello"}]}
END
prints "show a chat" 0 '[Hello<|im_end|>]' data show "$campus" --set "data.train=$work/chat.jsonl" \
	--set data.template=chatml --set data.sequence=96
grep -q 'spells it out' "$work/stderr" || fail "a token that is missing is not warned of"

mkdir "$work/spaces"
cp "$EDGEPIPE_SOURCE/topologies/campus/model/config.json" "$work/spaces"
cat > "$work/spaces/tokenizer.json" << 'END'
{"added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true}],
 "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
  {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
 "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
  {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
 "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "\u2581": 1, "a": 2, "b": 3}, "merges": []}}
END
printf '{"prompt": "a b", "completion": "b a"}\n' > "$work/spaces.jsonl"
prints "show spaces" 0 'a b[ b a<|endoftext|>]' data show "$campus" --set "data.train=$work/spaces.jsonl" \
	--set "model.path=$work/spaces"
refused "show a data file" 2 'topology file' data show "$work/spaces.jsonl"

# Sequences that samples share: each sample by itself, and together those of the file.
"$EDGEPIPE" data show "$campus" -n 4000 --json | sed 's/.*"ids"/"ids"/' | sort > "$work/alone"
"$EDGEPIPE" data show "$campus" -n 4000 --json --set data.pack=true | sed 's/.*"ids"/"ids"/' | sort > "$work/packed"
cmp -s "$work/alone" "$work/packed" || fail "packed samples are not those of the file"
[ "$(wc -l < "$work/packed")" = 3040 ] || fail "not all of the packed samples are shown"
prints "show sequences" 0 '== sequence 1: ' data show "$campus" -n 2 --set data.pack=true
printed "show sequences" '^== sequence' 2
printed "show sequences" '^packed into [0-9]* sequences, up to [0-9]* samples in one$' 1
[ "$(grep -c '^-- sample' "$work/stdout")" -gt 2 ] || fail "no sequence holds two samples"
prints "show sequences as JSON" 0 '{"sequence": 1, "sample": 0, "ids": [' data show "$campus" -n 2 --json --set data.pack=true

prints "advise to longer sequences" 0 'many samples are cut: a longer data.sequence' data show "$campus" -n 1 \
	--set data.sequence=32
prints "advise to longer sequences" 0 'advice      many samples are cut' data check "$campus" --set data.sequence=32
prints "advise where nothing is trained" 65 'advice      many samples have no token to train on' data check "$campus" \
	--set data.sequence=12

# A byte at a time, a mark at the start is a mark.
{ printf '\357'; sleep 0.2; printf '\273'; sleep 0.2; printf '\277{"text": ""}\n'; } |
	"$EDGEPIPE" data tokenize --tokenizer "$work/spaces" - > "$work/stdout" 2> "$work/stderr" || true
[ "$(cat "$work/stdout")" = '{"ids": []}' ] || fail "a mark in pieces: $(cat "$work/stderr")"
printf 'hello "you"\nworld\n' > "$work/plain.txt"
refused "tokenize plain text" 65 'plain.txt:1:1: error: the line is no JSON map (as {"text": ..}), it begins with "hello \"you\""' \
	data tokenize --tokenizer "$work/spaces" "$work/plain.txt"
printf '[\n {"text": "a"}\n]\n' > "$work/list.json"
refused "tokenize a list" 65 "it begins a list: every line must be a map (jq -c '.[]'" \
	data tokenize --tokenizer "$work/spaces" "$work/list.json"
printf '{"text": "a"' > "$work/open.jsonl"
refused "tokenize half a line" 65 "open.jsonl:1:12: error: '}' expected, but here it ends" \
	data tokenize --tokenizer "$work/spaces" "$work/open.jsonl"

prints "check a topology" 0 'samples     3040, 0 of them duplicates' data check "$campus"
printed "check a topology" 'errors      0' 2
printf '{"text": "abcde"}\r\n{"text": "abcde"}' > "$work/twice.jsonl"
prints "check a file" 0 'lengths     5 at least, 5 median, 5 at 95 %, 5 at most (bytes' data check "$work/twice.jsonl"
prints "check for duplicates" 0 '2, 1 of them a duplicate' data check "$work/twice.jsonl"
prints "check with a model" 0 'truncation  2 samples are longer than 3' data check "$work/twice.jsonl" \
	--model "$EDGEPIPE_SOURCE/topologies/campus/model" --sequence 3
printf '{"text": "a"}\n{"text": 5}\n\n{"text": "b"}\n{"text": "\\ud800"}\n{"txt": "c"}\n{"text": 1e400}\n' > "$work/bad.jsonl"
prints "check a bad file" 65 'errors      5' data check "$work/bad.jsonl"
for place in 2:10 3:1 5:17 6:1 7:; do
	grep -q "bad.jsonl:$place" "$work/stderr" || fail "the error at $place is not said"
done
i=0
while [ $i -lt 300 ]; do
	echo '{"text": 5}'
	i=$((i + 1))
done > "$work/many.jsonl"
echo '{"text": "a"}' | cat - "$work/many.jsonl" > "$work/most.jsonl"
prints "check many errors" 65 'errors      300' data check "$work/most.jsonl"
[ "$(grep -c 'is no text' "$work/stderr")" = 100 ] || fail "not a hundred errors are said"
grep -q '300 errors, the first 100' "$work/stderr" || fail "the other errors are not counted"
refused "check a file that is not there" 66 'nowhere.jsonl' data check "$work/nowhere.jsonl"
refused "check an unknown kind" 78 'no data file by its name' data check "$EDGEPIPE_SOURCE/README.md"
echo '[{"instruction": "a", "output": "b"}]' > "$work/list.json"
refused "check a list" 78 "(jq -c '.[]' makes lines of a list)" data check "$work/list.json"
printf '{"messages": [{"from": "human", "value": "a"}]}\n' > "$work/names.jsonl"
refused "show names of the other convention" 65 'has no "role" ("from" is there; data.columns maps names)' \
	data show "$campus" --set data.template=alpaca --set "data.train=$work/names.jsonl"
{
	echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
	echo '{"conversations": []}'
} > "$work/mixed.jsonl"
refused "show mixed forms" 65 'mixed.jsonl:2:1: error: there is no "messages": the first line tells the form' \
	data show "$campus" --set data.template=alpaca --set "data.train=$work/mixed.jsonl"
refused "tokenize with a model" 2 "did you mean '--tokenizer'?" data tokenize --model gpt2 "$work/names.jsonl"
prints "help names show and check" 0 '(show, check)' help
refused "check a wrong mask" 2 "assistant-only" data check "$work/twice.jsonl" --mask some
for action in show check; do
	prints "help" 0 'Examples:' data $action --help
done

# A small file may hold a line of any length.
{ printf '{"text": "'; head -c 70000000 /dev/zero | tr '\0' a; } | gzip -1 > "$work/bomb.jsonl.gz"
status=0
"$EDGEPIPE" data check "$work/bomb.jsonl.gz" > "$work/stdout" 2> "$work/stderr" || status=$?
if [ $status != 65 ] || ! grep -q 'bomb.jsonl.gz:1:1: error: the line is longer than 64 MiB' "$work/stdout" "$work/stderr"; then
	fail "a line of 70 MB: exit $status, $(cat "$work/stderr")"
fi

# What was tokenised is found again, by train too.
rm -rf "$work/cache"
"$EDGEPIPE" data show "$campus" -n 1 > /dev/null
# kept: the file and which one; a note about the source comes beside it once the source is older than a moment
kept() {
	ls -i "$work/cache/edgepipe/data" | grep '\.ids$'
}
before=$(kept)
"$EDGEPIPE" data show "$campus" -n 1 > /dev/null
[ "$before" = "$(kept)" ] || fail "the data are tokenised again"
[ "$(kept | wc -l)" = 1 ] || fail "the data are not kept"

# What other sources tokenised has another name: the build's digest of them is that of these files, and of all of them.
cmake=$(sed -n 's/^CMAKE_COMMAND:INTERNAL=//p' "$EDGEPIPE_BUILD/CMakeCache.txt")
sources() {
	"$cmake" "-DROOT=$1" "-DHEADER=$work/sources.h" -P "$EDGEPIPE_SOURCE/model/sources_digest.cmake"
	cat "$work/sources.h"
}
mkdir "$work/sources" "$work/sources/base"
cp -r "$EDGEPIPE_SOURCE/model" "$work/sources"
cp "$EDGEPIPE_SOURCE/base/json.c" "$work/sources/base"
now=$(sources "$work/sources")
[ "$now" = "$(cat "$EDGEPIPE_BUILD/generated/model_sources.h")" ] || fail "the digest of the sources is not up to date"
for file in model/utf8.c model/chat.h base/json.c; do
	echo >> "$work/sources/$file"
	[ "$now" != "$(sources "$work/sources")" ] || fail "$file does not count for the data that are kept"
	now=$(sources "$work/sources")
done
finish
