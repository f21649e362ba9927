#!/bin/sh
# edgepipe compare: training time against hop count, in the published setting and on a small lab; its files; what it refuses.
#
#   EDGEPIPE=build/edgepipe EDGEPIPE_SOURCE=. sh tests/compare_test.sh
set -eu
: "${EDGEPIPE:?the program}" "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
source=$(cd "$EDGEPIPE_SOURCE" && pwd)
fig5=$source/topologies/fig5.yaml

# The published setting, computed beforehand by a simulation that shares no code with ours: efficiency, codec, schedule,
# micro-batches, hours for 1..6 servers. Every value within 3 %, and the same best number of hops.
while read -r efficiency codec schedule micro expected; do
	"$EDGEPIPE" compare "$fig5" --split fractional --tokens 264000000 --efficiency "$efficiency" --codec "$codec" \
		--schedule "$schedule" --micro-batches "$micro" --csv - > "$work/rows.csv"
	awk -F, -v expected="$expected" -v name="$efficiency $codec $schedule $micro" '
		BEGIN { n = split(expected, hours, " ") }
		NR > 1 {
			got = $6 / 3600; off = got / hours[$1] - 1; off = off < 0 ? -off : off
			worst = off > worst ? off : worst
			if (!best || got < least) { best = $1; least = got }
			if (!right || hours[$1] < hours[right]) right = $1
		}
		END {
			printf "%s: at most %.2f %% off, best %d\n", name, 100 * worst, best
			exit NR != n + 1 || worst > 0.03 || best != right
		}' "$work/rows.csv" || fail "$efficiency $codec $schedule $micro: $expected"
done << 'END'
1.0 none sequential 80 12.4 24.6 36.7 48.9 61.0 73.2
1.0 none greedy 20 8.25 9.43 10.1 10.7 11.3 12.0
1.0 none greedy 80 7.21 7.51 7.67 7.83 7.99 8.15
1.0 bf16 greedy 80 3.73 3.80 3.88 3.97 4.05 4.14
1.0 int8 greedy 20 3.99 2.72 2.89 3.09 3.28 3.48
1.0 int8 greedy 80 3.45 2.01 2.05 2.10 2.15 2.20
1.0 int4 greedy 80 3.39 1.80 1.29 1.14 1.17 1.19
0.4 none greedy 20 10.7 9.87 10.5 11.2 11.8 12.4
0.4 none greedy 80 8.81 7.62 7.78 7.94 8.11 8.25
0.4 bf16 greedy 20 9.61 6.05 5.74 6.04 6.38 6.72
0.4 bf16 greedy 80 8.54 4.58 4.01 4.09 4.17 4.26
0.4 int8 greedy 20 9.09 5.39 4.29 3.83 3.78 3.92
0.4 int8 greedy 80 8.41 4.42 3.12 2.49 2.28 2.31
0.4 int4 greedy 80 8.35 4.33 3.02 2.37 2.00 1.75
END

# Whole blocks and the planner's choice: the planner is no slower than the even split, and numbers blocks from the clients'.
for split in blocks planned; do
	"$EDGEPIPE" compare "$fig5" --split $split --efficiency 0.4 --codec bf16 --csv "$work/$split.csv" > "$work/$split" ||
		fail "--split $split"
done
paste -d, "$work/planned.csv" "$work/blocks.csv" | awk -F, 'NR > 1 && $6 > $14 * 1.001 { bad = 1 } END { exit bad || NR != 7 }' ||
	fail "the planner loses against the even split"
grep -q 'server-[1-6] 2-23$' "$work/planned" || fail "blocks are not numbered after the clients'"
grep -q '^   3\*' "$work/planned" || fail "3 hops are not the best"

# Without clients every row is what plan says of so many stages.
"$EDGEPIPE" compare "$source/topologies/campus.yaml" --csv "$work/campus.csv" --json "$work/campus.json" --svg "$work/campus.svg" > "$work/table"
for h in 1 3 5; do
	"$EDGEPIPE" plan "$source/topologies/campus.yaml" --set plan.stages=$h --set train.micro_batch=1 -o "$work/plan.json" > /dev/null
	step=$(sed -n 's/.*"simulated_step_s":\([^,]*\),.*/\1/p' "$work/plan.json")
	awk -F, -v h=$h -v step="$step" '$1 == h && ($5 / step - 1) ^ 2 < 1e-12 { found = 1 } END { exit !found }' "$work/campus.csv" ||
		fail "another step than plan's for $h stages ($step)"
done

# A link that follows a trace is as fast as its mean.
printf '0,10\n1,30\n' > "$work/trace.csv"
for rate in "trace: $work/trace.csv" 'bandwidth: 20 Mbit/s'; do
	sed "s|{nodes: \[workshop, music\], bandwidth: 24 Mbit/s|{nodes: [workshop, music], $rate|; s|campus/|$source/topologies/campus/|g" \
		"$source/topologies/campus.yaml" > "$work/traced.yaml"
	"$EDGEPIPE" compare "$work/traced.yaml" --hops 5 --split blocks --csv - >> "$work/traced.csv"
	"$EDGEPIPE" plan "$work/traced.yaml" | grep '^predict' >> "$work/traced"
done
[ "$(sort -u "$work/traced.csv" | wc -l)" = 2 ] || fail "a trace is not its mean"
[ "$(sort -u "$work/traced" | wc -l)" = 1 ] || fail "plan: a trace is not its mean"
"$EDGEPIPE" compare "$source/topologies/campus.yaml" --hops 5 --split blocks --csv "$work/untraced.csv" > /dev/null
! sort -u "$work/traced.csv" | grep -qF "$(grep '^5' "$work/untraced.csv")" || fail "the trace changes nothing"

# What does not fit is a row with the reason, and null.
set --
for i in 0 1 2 3 4; do set -- "$@" --set nodes.$i.memory=30MiB; done
"$EDGEPIPE" compare "$source/topologies/campus.yaml" "$@" --json "$work/tight.json" > "$work/table" 2> "$work/stderr" || fail "no row fits?"
[ ! -s "$work/stderr" ] || { cat "$work/stderr"; fail "the reason is not in the row alone"; }
grep -q '   1   .*no placement holds the model: .*MiB' "$work/table" || fail "no reason"
grep -q '"hops":1,.*"step_s":null.*"why":"no placement holds' "$work/tight.json" || fail "no null"
grep -q '^   [2-5]\*' "$work/table" || fail "several nodes do not hold what one cannot"
# One small node among large ones: every number of hops has a plan, and more memory is never worse.
"$EDGEPIPE" compare "$source/topologies/campus.yaml" --set nodes.1.memory=30MiB --csv "$work/small.csv" > /dev/null || fail "a small node"
paste -d, "$work/campus.csv" "$work/small.csv" | awk -F, 'NR > 1 && !($13 >= $5 * 0.9999) { bad = 1 } END { exit bad || NR != 6 }' ||
	fail "less memory makes faster, or leaves no plan"

# Links whose codec is left to the planner: never slower than without one. Who does not plan takes none.
"$EDGEPIPE" compare "$source/topologies/campus.yaml" --set links.default.codec=auto --csv "$work/auto.csv" > /dev/null || fail "codec auto"
paste -d, "$work/campus.csv" "$work/auto.csv" | awk -F, 'NR > 1 && ($10 != "auto" || $13 > $5 * 1.006) { bad = 1 } END { exit bad || NR != 6 }' ||
	fail "the planner's codecs lose"
for split in planned blocks fractional; do
	for codec in auto none; do
		"$EDGEPIPE" compare "$fig5" --set links.default.codec=$codec --hops 3 --split $split --csv "$work/$codec.csv" > /dev/null ||
			fail "codec $codec, --split $split: exit $?"
	done
	[ $split = planned ] || [ "$(cut -d, -f 5 "$work/auto.csv")" = "$(cut -d, -f 5 "$work/none.csv")" ] ||
		fail "--split $split with codec auto is not as with none"
done

# A hostile name: JSON, CSV and SVG hold.
sed 's|name: library,|name: "<b>\&\\"x\x27,]]>",|; s|\[library,|["<b>\&\\"x\x27,]]>",|; s|campus/model|'"$source/topologies/campus/model"'|; s|^name: campus|name: "a<b>\&\\"c"|' \
	"$source/topologies/campus.yaml" > "$work/hostile.yaml"
"$EDGEPIPE" compare "$work/hostile.yaml" --hops 2 --csv "$work/h.csv" --json "$work/h.json" --svg "$work/h.svg" > /dev/null || fail "a hostile name"
grep -q '""x' "$work/h.csv" || fail "CSV does not double quotes"
grep -q '<b>' "$work/h.svg" && fail "SVG holds what a name says"
grep -q '&lt;b&gt;&amp;&quot;c' "$work/h.svg" || fail "SVG has not the name"
if command -v python3 > /dev/null; then
	python3 - "$work" << 'END' || fail "JSON, CSV or SVG"
import csv, json, sys, xml.etree.ElementTree
work = sys.argv[1]
for name, hops in (("campus", [1, 2, 3, 4, 5]), ("h", [2])):
    data = json.load(open(f"{work}/{name}.json"))
    assert data["version"] == 1 and [row["hops"] for row in data["rows"]] == hops, data
    best = min(data["rows"], key=lambda row: row["total_s"])
    assert data["best_hops"] == best["hops"]
    for row in data["rows"]:
        assert set(row) == {"hops", "codec", "schedule", "micro_batches", "step_s", "total_s", "bottleneck", "plan"}
        assert len(row["plan"]) == row["hops"]
        total = row["step_s"] * data["setting"]["tokens"] / (row["micro_batches"] * data["setting"]["micro_batch"] * data["setting"]["sequence"])
        assert abs(total / row["total_s"] - 1) < 1e-6
    rows = list(csv.DictReader(open(f"{work}/{name}.csv", newline="")))
    assert [int(row["hops"]) for row in rows] == hops
    assert all(len(row) == 8 and None not in row.values() for row in rows)
    root = xml.etree.ElementTree.parse(f"{work}/{name}.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "foreignObject"))]
assert '<b>&"x\',]]>' in [stage["node"] for stage in json.load(open(f"{work}/h.json"))["rows"][0]["plan"]]
END
else
	echo "skipped: reading JSON, CSV and SVG with another program: no python3"
fi

refused "no file" 2 "which topology file" compare
refused "two files" 2 "one topology file" compare a b
refused "an unknown option" 2 "did you mean '--hops'" compare "$fig5" --hpos 3
refused "an unknown codec" 2 "did you mean 'int8'" compare "$fig5" --codec bf16,int6
refused "all errors at once" 2 "did you mean 'planned'" compare "$fig5" --codec in8 --schedule eagre --split plannd --hops x
[ "$(grep -c 'compare: --' "$work/stderr")" = 4 ] || fail "not all errors at once"
refused "hops beyond the servers" 2 "has 6 servers" compare "$fig5" --hops 1..7
refused "hops that end before they begin" 2 "ends before it begins" compare "$fig5" --hops 3..2
refused "an efficiency above 1" 2 "up to 1" compare "$fig5" --efficiency 1.5
refused "tokens that are no number" 2 "264M" compare "$fig5" --tokens many
refused "greedy without its split" 2 "fractional" compare "$fig5" --schedule greedy
refused "two files on standard output" 2 "only one" compare "$fig5" --json - --csv -
refused "a micro-batch that does not divide" 2 "does not divide" compare "$fig5" --micro-batch 3
sed 's/steps: 200/epochs: 2/; s|campus/model|'"$source/topologies/campus/model"'|' "$source/topologies/campus.yaml" > "$work/epochs.yaml"
refused "epochs without tokens" 2 "--tokens" compare "$work/epochs.yaml"
refused "a number of stages" 78 "--hops" compare "$source/topologies/campus.yaml" --set plan.stages=2
refused "layers by hand" 78 "plan.layers" compare "$source/topologies/campus.yaml" --set "plan.layers=[2,2,2,2,2]"
refused "nodes that declare nothing" 78 "nodes[6].compute" compare "$source/topologies/fig5.yaml" --set nodes.6="{name: server-2}"
refused "clients that hold more than there is" 78 "the model has 24" compare "$fig5" --set plan.client_blocks=25
refused "a file that is not there" 66 "none.yaml" compare none.yaml
refused "an output folder that is not there" 73 "nowhere" compare "$fig5" --svg "$work/nowhere/a.svg"

# Elsewhere clients are refused by name.
for command in train plan; do
	status=0
	"$EDGEPIPE" $command "$fig5" > "$work/stdout" 2> "$work/stderr" || status=$?
	[ $status = 78 ] && grep -q "nodes\[0\].role: clients are simulated by compare; $command does not run them yet" "$work/stderr" ||
		fail "$command with clients: exit $status"
	[ "$(grep -c 'clients are' "$work/stderr")" = 1 ] && grep -q 'edgepipe compare is for these' "$work/stderr" ||
		fail "$command with clients: not said once, or without what to do"
done
finish
