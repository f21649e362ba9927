#!/bin/sh
# The published question with three answers, as a table: best number of servers and hours, FLOPs cut anywhere, whole blocks
# shared evenly, and the planner's choice.
#
#   EDGEPIPE=build/edgepipe sh bench/hops_published.sh
set -eu
: "${EDGEPIPE:?the program}"
fig5=$(cd "$(dirname "$0")/.." && pwd)/topologies/fig5.yaml

# best SPLIT EFFICIENCY CODEC M: "3 servers, 4.01 h"
best() {
	"$EDGEPIPE" compare "$fig5" --split "$1" --efficiency "$2" --codec "$3" --micro-batches "$4" --tokens 264M --csv - |
		awk -F, 'NR > 1 && (!hops || $6 < s) { hops = $1; s = $6 } END { printf "%d: %.2f h", hops, s / 3600 }'
}

echo "| share of the declared FLOPS | codec | M | fractional | blocks | planned |"
echo "|---|---|---|---|---|---|"
for efficiency in 1 0.4; do
	for codec in none bf16 int8 int4; do
		for micro in 20 80; do
			echo "| $efficiency | $codec | $micro | $(best fractional $efficiency $codec $micro) |" \
				"$(best blocks $efficiency $codec $micro) | $(best planned $efficiency $codec $micro) |"
		done
	done
done
