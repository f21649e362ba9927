#!/bin/sh
# Reads the #include lines of the tree and fails on the first that climbs the layers, opens another
# folder's private header, or brings an external library into a room that is not its own. Then plants
# one violation of every rule in a tree of its own, to see that each is found.
set -eu
root=${EDGEPIPE_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
folders="base comm tensor model pipeline profiler partition launch"

# What a folder may include besides itself.
below() {
	case $1 in
	base) ;;
	comm) echo base ;;
	tensor) echo base comm ;;
	model) echo base tensor ;;
	pipeline | profiler) echo base comm tensor model ;;
	partition) echo base model pipeline profiler ;;
	launch) echo base comm tensor model pipeline profiler partition ;;
	esac
}

# The files that may include an external header, as a pattern; nothing: all of them may.
room_of() {
	case $1 in
	jansson*.h) echo 'base/json.c' ;;
	yaml.h) echo 'base/yaml.c' ;;
	xxhash.h | xxh3.h) echo 'base/digest.c' ;;
	mpi.h) echo 'comm/mpi.c launch/*' ;;
	cblas.h | f77blas.h | lapack*.h | openblas*) echo 'tensor/cpu*.c tensor/blas.c' ;;
	hwloc.h | hwloc/*) echo 'profiler/* launch/*' ;;
	pcre2*.h | utf8proc.h) echo 'model/*' ;;
	check.h) echo 'tests/*' ;;
	esac
}

# "file line header" of every include in a tree; own headers keep their quote.
includes() {
	cd "$1"
	for folder in $folders; do
		if [ -d "$folder" ]; then
			find "$folder" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh'
		fi
	done | sort | xargs grep -n '^[[:space:]]*#[[:space:]]*include' /dev/null |
		sed -e 's/:[[:space:]]*#[[:space:]]*include[[:space:]]*/ /' -e 's/:/ /' \
			-e 's/[">][^">]*$//' -e 's/<//'
}

fits() { # FILE PATTERN...
	file=$1
	shift
	for pattern; do
		# shellcheck disable=SC2254
		case $file in $pattern) return 0 ;; esac
	done
	return 1
}

# Says why an include is wrong, or nothing.
judge_own() { # FILE HEADER
	from=${1%%/*} to=${2%%/*}
	case " $folders " in
	*" $to "*) ;;
	*) echo "\"$2\" is not a path from the root of the tree" && return ;;
	esac
	if [ "$from" = "$to" ]; then
		return
	fi
	case " $(below "$from") " in
	*" $to "*) ;;
	*) echo "$from/ may not include \"$2\"" && return ;;
	esac
	if [ "$2" != "$to/$to.h" ]; then
		echo "\"$2\" is private to $to/"
	fi
}

judge_external() { # FILE HEADER
	set -f
	# shellcheck disable=SC2046
	set -- "$1" "$2" $(room_of "$2")
	set +f
	file=$1 header=$2
	shift 2
	if [ $# -gt 0 ] && ! fits "$file" "$@"; then
		echo "<$header> belongs in $*"
	fi
}

check_tree() { # ROOT
	includes "$1" | while read -r file line header; do
		case $header in
		\"*) why=$(judge_own "$file" "${header#\"}") ;;
		*) why=$(judge_external "$file" "$header") ;;
		esac
		if [ -n "$why" ]; then
			echo "$file:$line: $why"
			return 1
		fi
	done
}

check_tree "$root"
count=$(includes "$root" | wc -l)
if [ "$count" -lt 100 ]; then
	echo "only $count includes found under '$root'"
	exit 1
fi

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT

# Whether a tree with this one include in this one file passes.
passes() { # FILE HEADER
	rm -rf "$planted/tree"
	mkdir -p "$planted/tree/${1%/*}"
	printf '/* a file */\n\n#include %s\t/* why */\n' "$2" >"$planted/tree/$1"
	check_tree "$planted/tree" >"$planted/said"
}

wrong=0
while read -r file header; do
	if passes "$file" "$header"; then
		echo "not found: $file with #include $header"
		wrong=1
	elif ! grep -q "^$file:3: " "$planted/said"; then
		echo "$file:3 is not named: $(cat "$planted/said")"
		wrong=1
	fi
done <<'END'
base/log.c "comm/comm.h"
comm/mpi.c "model/model.h"
comm/mpi.c "tensor/tensor.h"
tensor/cpu.c "model/model.h"
model/stage.c "comm/comm.h"
model/stage.c "pipeline/pipeline.h"
pipeline/train.c "profiler/profiler.h"
pipeline/train.c "partition/partition.h"
profiler/links.c "pipeline/pipeline.h"
profiler/links.c "partition/partition.h"
partition/plan.c "tensor/tensor.h"
partition/plan.c "comm/comm.h"
partition/plan.c "launch/launch.h"
partition/plan.c "model/internal.h"
launch/main.c "model/stage.h"
launch/main.c "options.h"
model/stage.c "../launch/launch.h"
tensor/kernels/gemm.h "launch/launch.h"
tensor/cuda.cu "model/model.h"
base/yaml.c <jansson.h>
base/json.c <yaml.h>
model/weights.c <xxhash.h>
comm/local.c <mpi.h>
model/linear.c <cblas.h>
tensor/device.c <cblas.h>
base/threads.c <hwloc.h>
tensor/device.c <hwloc/openfabrics-verbs.h>
base/yaml.c <pcre2.h>
launch/main.c <utf8proc.h>
base/base.h <check.h>
END
while read -r file header; do
	if ! passes "$file" "$header"; then
		echo "wrongly found: $(cat "$planted/said")"
		wrong=1
	fi
done <<'END'
base/log.c "base/voice.h"
comm/mpi.c "base/base.h"
tensor/device.c "comm/comm.h"
pipeline/train.c "model/model.h"
profiler/links.c "comm/comm.h"
partition/plan.c "pipeline/pipeline.h"
launch/main.c "partition/partition.h"
base/json.c <jansson.h>
base/yaml.c <yaml.h>
base/digest.c <xxhash.h>
comm/mpi.c <mpi.h>
launch/main.c <mpi.h>
tensor/cpu_matmul.c <cblas.h>
tensor/blas.c <cblas.h>
profiler/hardware.c <hwloc.h>
launch/bind.c <hwloc.h>
model/bpe.c <pcre2.h>
model/bpe.c <string.h>
END
[ "$wrong" = 0 ]
echo "$count includes, all in order"
