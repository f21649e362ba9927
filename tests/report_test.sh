#!/bin/sh
# report.html: written at the end of a run, the same when it is made again from the run's files, whole where files are
# missing, closed to whatever names say, and one file without anything from outside.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/report_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
source=$(cd "$EDGEPIPE_SOURCE" && pwd)
campus=$source/topologies/campus
. "$source/launch/env.sh"

# has FILE WORDS...: every one of them is there
has() {
	file=$1
	shift
	for words; do
		grep -qF -e "$words" "$file" || fail "$(basename "$(dirname "$file")"): no \"$words\""
	done
}

# whole FILE: elements are closed in order, pictures are XML, nothing is run or fetched
whole() {
	! grep -qiE '<script|<iframe|<img|<link|javascript:| on[a-z]+=|url\((http|data)|@import|href=' "$1" || fail "$1: something runs or is fetched"
	if ! command -v python3 > /dev/null; then
		echo "skipped: reading the page with another program: no python3"
		return
	fi
	python3 - "$1" << 'END' || fail "$1 is broken"
import html.parser, re, sys, xml.dom.minidom
text = open(sys.argv[1], encoding="utf-8").read()
class Parser(html.parser.HTMLParser):
    stack = []
    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.stack.append(tag)
    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, (tag, self.stack, self.getpos())
        self.stack.pop()
parser = Parser()
parser.feed(text)
parser.close()
assert not parser.stack, parser.stack
pictures = re.findall(r"<svg.*?</svg>", text, re.S)
assert len(pictures) == text.count("<svg") and pictures
for picture in pictures:
    xml.dom.minidom.parseString(picture)
END
}

# One rank whose name is hostile, nothing declared, two steps, the last one traced.
cat > "$work/one.yaml" << END
version: 1
name: 'a <b>&"run'
nodes:
  - {name: '<script>alert("x")</script>', cores: 1}
model: {path: $campus/model}
data: {train: $campus/train.jsonl, sequence: 64}
train: {batch: 4, steps: 2, trace: 1}
END
"$EDGEPIPE" train "$work/one.yaml" --out "$work/one" > "$work/stdout" || fail "one rank: exit $?"
has "$work/stdout" "report  $work/one/report.html"
whole "$work/one/report.html"
has "$work/one/report.html" '<h1>a &lt;b&gt;&amp;&quot;run</h1>' '&lt;script&gt;alert' '2 of 2' 'Nothing was predicted' 'measured: step 2'

# Three ranks with declared speeds: predicted beside measured.
if command -v mpirun > /dev/null; then
	cat > "$work/three.yaml" << END
version: 1
name: three
nodes:
  - {name: north, compute: 9 GFLOPS, memory: 1 GiB}
  - {name: south, compute: 6 GFLOPS, memory: 1 GiB}
  - {name: west, compute: 6 GFLOPS, memory: 1 GiB}
links: {default: {bandwidth: 100 Mbit/s, latency: 1 ms}}
emulate: {links: true, compute: true}
model: {path: $campus/model}
data: {train: $campus/train.jsonl, valid: $campus/valid.jsonl, sequence: 64}
train: {batch: 8, micro_batch: 1, steps: 3, trace: 2}
plan: {layers: [4, 3, 3]}
END
	timeout 100 mpirun -np 3 "$EDGEPIPE" train "$work/three.yaml" --out "$work/three" > "$work/stdout" 2>&1 || {
		cat "$work/stdout"
		fail "three ranks"
	}
	cp "$work/stdout" "$work/log"
	page=$work/three/report.html
	whole "$page"
	has "$page" 'predicted: ' 'measured: step 3' 'bottleneck</td><td>stage 2 (west) ' 'mean of the whole run' 'bottleneck' 'what would help most' '100 Mbit/s' '9 GFLOPS declared' \
		'limit 1 GiB' 'validation' 'peak in the training steps'
	# One statistic of the step's time: the second step's, since the first is the first and a validation follows the third.
	second=$(sed -n 's/.*"kind":"step","step":2,.*"step_s":\([0-9.]*\).*/\1/p' "$work/three/metrics.jsonl")
	has "$page" "that a validation follows)</td><td>$(awk -v s="$second" 'BEGIN { printf "%.4g s", s }') "
	awk -v s="$second" '/^ step  \(median\)/ { t = $5 * ($6 == "ms" ? 1e-3 : 1); ok = t > s * .99 && t < s * 1.01 } END { exit !ok }' \
		"$work/log" || fail "the outcome's step is another than the report's"
	grep -q 'micro_batch: 1' "$work/three/config.resolved.yaml" || fail "the micro-batch that was asked for is gone"
	# Both panels show the 3 x 8 forwards and 2 x 8 messages of either direction, and one of each is in the key.
	[ "$(grep -c 'class="forward"/>' "$page")" = 49 ] || fail "another number of forwards"
	[ "$(grep -c 'class="backward sent"/>' "$page")" = 33 ] || fail "another number of messages"

	cp "$page" "$work/first.html"
	"$EDGEPIPE" report "$work/three" > "$work/stdout" || fail "report: exit $?"
	has "$work/stdout" "report  $work/three/report.html"
	cmp "$page" "$work/first.html" || fail "another page from the same files"
	"$EDGEPIPE" report "$work/three" -o - > "$work/stdout" || fail "report -o -: exit $?"
	cmp "$page" "$work/stdout" || fail "another page on standard output"

	# Numbers that no plan can have: the page says why nothing is predicted, and nothing is played.
	cp "$work/three/plan.json" "$work/plan.json"
	for change in 's/"micro_batches":[0-9]*/"micro_batches":-1/' 's/"micro_batches":[0-9]*/"micro_batches":2000000000/' \
		's/"order":"[a-z]*"/"order":"bogus"/' 's/"in_flight":[0-9]*/"in_flight":-1/' \
		's/"in_flight":[0-9]*/"in_flight":2000000000/' 's/"forward_s":[0-9.e-]*/"forward_s":-1/' \
		's/"seconds":[0-9.e-]*/"seconds":-1/' 's/"simulated_step_s":[0-9.e-]*/"simulated_step_s":-1/'; do
		sed "$change" "$work/plan.json" > "$work/three/plan.json"
		! cmp -s "$work/plan.json" "$work/three/plan.json" || fail "$change changes nothing"
		timeout 20 "$EDGEPIPE" report "$work/three" > /dev/null || fail "$change: exit $?"
		has "$page" 'It cannot be shown' 'plan.json' ' is not '
		! grep -q 'predicted: ' "$page" || fail "$change: something is predicted"
		whole "$page"
	done
	mv "$work/plan.json" "$work/three/plan.json"

	# Resumed without a trace: the old one is of no use, and the measures are those of the second start.
	timeout 100 mpirun -np 3 "$EDGEPIPE" train "$work/three.yaml" --out "$work/three" --resume --set train.steps=5 \
		--set train.trace=0 > "$work/stdout" 2>&1 || {
		cat "$work/stdout"
		fail "three ranks again"
	}
	whole "$page"
	has "$page" '5 of 5' 'No step was traced'

	# A run that was killed in the middle of a line, without a trace; and without its model.
	rm "$work/three/trace.json"
	grep -v '"kind":"end"' "$work/three/metrics.jsonl" > "$work/metrics" || true
	printf '{"kind":"ste' >> "$work/metrics"
	mv "$work/metrics" "$work/three/metrics.jsonl"
	"$EDGEPIPE" report "$work/three" || fail "killed: exit $?"
	whole "$page"
	has "$page" 'has not ended' 'No step was traced' 'predicted: '
	sed -i "s|path: .*model|path: $work/gone|" "$work/three/config.resolved.yaml"
	"$EDGEPIPE" report "$work/three" || fail "no model: exit $?"
	whole "$page"
	has "$page" 'It cannot be shown' "$work/gone"
else
	echo "skipped: three ranks: no mpirun"
fi

mkdir "$work/empty" "$work/broken"
printf '{"kind":"run"}\n{"kind"\n{}\n' > "$work/broken/metrics.jsonl"
refused "no directory" 2 "which run directory" report
refused "two directories" 2 "one run at a time" report a b
refused "an unknown option" 2 "--output" report --ouput=a b
refused "no run" 66 "holds no run" report "$work/empty"
refused "a broken log" 65 "metrics.jsonl:2:" report "$work/broken"
refused "an output folder that is not there" 73 "nowhere" report "$work/one" -o "$work/nowhere/a.html"
finish
