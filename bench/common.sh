# Sourced by the other scripts, which set $root: the program and a place to work in, inputs, and numbers out of what
# programs write.
# shellcheck shell=sh disable=SC2154,SC2034

# -- options ---------------------------------------------------------------------------------

# fail MESSAGE [CODE]: ends the script; without a code: wrong usage
fail() {
	echo "edgepipe: error: $1" >&2
	exit "${2:-2}"
}

# variable_of OPTION ENTRIES...: where the value of that option goes; nothing where no entry is that option
variable_of() {
	option=$1
	shift
	for entry in "$@"; do
		case $option in "--${entry%%=*}" | "--${entry%+}") echo "${entry#*=}" | tr -- - _ ;; esac
	done
}

# take_options "NAME NAME=VARIABLE NAME+ WORD ..." "$@": the value of --NAME goes to the variable of that name, with _ for
# -, or to VARIABLE; of NAME+ there may be many, a line each. A WORD in capitals is the one argument that is no option, and
# goes to that name in small letters.
take_options() {
	entries=$1
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		-h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
		-*) take_named "$@"; shift 2 ;;
		*) take_word "$1"; shift ;;
		esac
	done
}

# take_named OPTION VALUE: only names that the script itself gave are evaluated
take_named() {
	case $1 in *[!a-z-]*) unknown "$1" ;; esac
	# shellcheck disable=SC2086
	variable=$(variable_of "$1" $entries)
	[ "$variable" ] || unknown "$1"
	case ${2---} in --*) fail "$1 needs a value" ;; esac
	case $variable in
	*+) eval "${variable%+}=\"\${${variable%+}}
\$2\"" ;;
	*) eval "$variable=\$2" ;;
	esac
}

take_word() {
	variable=$(echo "$entries" | grep -o '[A-Z][A-Z]*' | tr '[:upper:]' '[:lower:]')
	[ "$variable" ] || unknown "$1"
	eval "first=\$$variable"
	[ -z "$first" ] || fail "one $variable at a time; '$1' is a second one"
	eval "$variable=\$1"
}

unknown() {
	fail "unknown option '$1'; there are: $(echo "$entries" | sed 's/[A-Z][A-Z]* *//; s/=[a-z_]*//g; s/+//g; s/\([a-z][a-z-]*\)/--\1/g')"
}

# -- the program -----------------------------------------------------------------------------

# Refuses a $build without the program, and makes it absolute, since others may start it from elsewhere; $work: a folder
# that goes when the script ends.
need_build() {
	[ -x "$build/edgepipe" ] || fail "no program in '$build' (--build DIR)" 66
	build=$(cd "$build" && pwd)
	. "$root/launch/env.sh"
	PATH=$build:$PATH
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM
}

# -- inputs ----------------------------------------------------------------------------------

# make_inputs MODEL SEQUENCE SAMPLES: $folder/MODEL, and $tokens: the data file, both kept from one script to the next
make_inputs() {
	mkdir -p "$folder"
	folder=$(cd "$folder" && pwd)
	if [ ! -f "$folder/$1/model.safetensors" ]; then
		rm -rf "$folder/$1.part"
		"$build/bench/make_model" "$1" "$folder/$1.part" > "$work/log"
		mv "$folder/$1.part" "$folder/$1"
	fi
	vocabulary=$(json_numbers vocab_size < "$folder/$1/config.json")
	tokens=$folder/tokens-$vocabulary-$2-$3.safetensors
	[ -f "$tokens" ] || "$build/bench/make_tokens" "$tokens" --vocabulary "$vocabulary" --sequence "$2" --samples "$3"
}

# -- numbers out of JSON ---------------------------------------------------------------------

# json_numbers KEY: every value of that key, one a line; none where it has none
json_numbers() {
	grep -o "\"$1\": *[-0-9.e+]*" | sed 's/.*: *//'
}

# steps_of METRICS: "loss tokens/s peak_bytes peak_bytes ..." of every step, one peak a stage
steps_of() {
	grep '"kind":"step"' "$1" | while read -r line; do
		# shellcheck disable=SC2046
		echo $(echo "$line" | json_numbers loss) $(echo "$line" | json_numbers tokens_s) \
			$(echo "$line" | json_numbers peak_bytes)
	done
}

# check_loss METRICS: random weights know nothing, so the first loss is about ln(vocabulary)
check_loss() {
	steps_of "$1" | head -n 1 | awk -v v="$vocabulary" '{ d = $1 - log(v); exit !(d > -0.5 && d < 0.5) }' ||
		fail "the first loss is not near ln($vocabulary): $(steps_of "$1" | head -n 1 | cut -d ' ' -f 1)" 70
}

# flop_per_token CONFIG SEQUENCE: of frozen linears and head 2 a weight forward and 2 backward, of attention its causal
# half, 2 T C forward and 4 T C backward a block; LoRA's own few percent are not counted
flop_per_token() {
	if grep -q '"gpt2"' "$1"; then
		width=$(json_numbers n_embd < "$1") layers=$(json_numbers n_layer < "$1")
		block=$((12 * width * width))
	else
		width=$(json_numbers hidden_size < "$1") layers=$(json_numbers num_hidden_layers < "$1")
		heads=$(json_numbers num_attention_heads < "$1") kv=$(json_numbers num_key_value_heads < "$1")
		mlp=$(json_numbers intermediate_size < "$1")
		block=$((2 * width * width + 2 * width * kv * (width / heads) + 3 * width * mlp))
	fi
	echo $((4 * (layers * block + vocabulary * width) + 6 * $2 * width * layers))
}

# -- statistics ------------------------------------------------------------------------------

# median: of the numbers on standard input
median() {
	sort -n | awk '{ x[NR] = $1 } END { print NR % 2 ? x[(NR + 1) / 2] : (x[NR / 2] + x[NR / 2 + 1]) / 2 }'
}

# range: "least-most"
range() {
	sort -n | awk 'NR == 1 { least = $1 } { most = $1 } END { print least "-" most }'
}

cpu_name() {
	sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1
}

# -- who else computes -----------------------------------------------------------------------

# CPU seconds of the whole machine since it started, without what its host took
machine_s() {
	awk -v hz="$(getconf CLK_TCK)" '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / hz }' /proc/stat
}

# CPU seconds of this shell and of its children that have ended; `times` must not run in a subshell
own_s() {
	times > "$work/times"
	tr 'ms' '  ' < "$work/times" | awk '{ s += 60 * ($1 + $3) + $2 + $4 } END { print s > "'"$work/own_s"'" }'
}

watch_start() {
	own_s
	watch="$(cut -d ' ' -f 1 /proc/uptime) $(machine_s) $(cat "$work/own_s")"
}

# Sets other_cores: what other processes used since watch_start
watch_end() {
	own_s
	other_cores=$(echo "$watch $(cut -d ' ' -f 1 /proc/uptime) $(machine_s) $(cat "$work/own_s")" |
		awk '{ x = ($5 - $2 - ($6 - $3)) / ($4 - $1); printf "%.2f", (x > 0 ? x : 0) }')
}

# is_quiet "CORES CORES": no more than a tenth of a core each
is_quiet() {
	echo "$1" | awk '{ for (i = 1; i <= NF; i++) if ($i > 0.1) exit 1 }'
}
