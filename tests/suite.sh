# Sourced by *_test.sh: a place to work in, failures that are counted, commands that must be refused. A test ends with
# `finish`.
# shellcheck shell=sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# fail MESSAGE: the test goes on, and fails in the end
fail() {
	echo "FAILED $1"
	failed=$((failed + 1))
}

# damage FILE OFFSET: that byte is another one
damage() {
	byte=$(od -A n -t u1 -j "$2" -N 1 "$1")
	# shellcheck disable=SC2059
	printf "\\$(printf %o $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2> /dev/null
}

# ends NAME CODE WORDS COMMAND ARGUMENTS...: it must end with CODE, say WORDS on standard error, which stays in
# $work/stderr, and nothing on standard output
ends() {
	name=$1 code=$2 words=$3
	shift 3
	status=0
	"$@" > "$work/stdout" 2> "$work/stderr" || status=$?
	if [ $status != "$code" ]; then
		fail "$name: exit $status instead of $code"
	elif ! grep -qF -e "$words" "$work/stderr"; then
		fail "$name: \"$words\" is not said"
	elif [ -s "$work/stdout" ]; then
		fail "$name: it writes to standard output"
	else
		return 0
	fi
	sed 's/^/    /' "$work/stderr"
}

# refused NAME CODE WORDS ARGUMENTS...: of the program
refused() {
	title=$1 ending=$2 saying=$3
	shift 3
	ends "$title" "$ending" "$saying" "$EDGEPIPE" "$@"
}

finish() {
	[ $failed = 0 ] || { echo "$failed failed"; exit 1; }
	echo "ok"
	exit 0
}
