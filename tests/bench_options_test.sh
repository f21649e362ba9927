#!/bin/sh
# The options of the measuring scripts in bench/: help, what is unknown, what lacks a value, where no program is.
#
#   EDGEPIPE_SOURCE=. sh tests/bench_options_test.sh
set -eu
: "${EDGEPIPE_SOURCE:?the checkout}"
bench=$(cd "$EDGEPIPE_SOURCE/bench" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
	echo "FAILED $1"
	failed=$((failed + 1))
}

# ends NAME CODE WORDS SCRIPT OPTIONS...: nothing is on standard output, and WORDS on the other
ends() {
	name=$1 code=$2 words=$3 script=$4
	shift 4
	status=0
	sh "$bench/$script" "$@" > "$work/stdout" 2> "$work/stderr" || status=$?
	if [ $status != "$code" ] || ! grep -qF -e "$words" "$work/stderr" || [ -s "$work/stdout" ]; then
		fail "$script, $name: exit $status instead of $code"
		cat "$work/stderr"
	fi
}

# helps SCRIPT: the head of the script and nothing else
helps() {
	sh "$bench/$1" --help > "$work/stdout" 2> "$work/stderr" || fail "$1 --help: exit $?"
	sed -n '2,/^[^#]/{ /^#/{ s/^# \{0,1\}//; p; }; }' "$bench/$1" > "$work/head"
	cmp -s "$work/head" "$work/stdout" && [ -s "$work/head" ] && [ ! -s "$work/stderr" ] || fail "$1 --help is not its head"
}

scripts=$(cd "$bench" && grep -l '^take_options ' ./*.sh | sed 's|^\./||')
[ "$(echo "$scripts" | wc -l)" -ge 8 ] || fail "scripts with options: $scripts"
for script in $scripts; do
	word=
	! grep -q "^take_options .*[A-Z]" "$bench/$script" || word=gpt2
	helps "$script"
	# shellcheck disable=SC2086
	{
		ends "an unknown option" 2 "unknown option '--buidl'; there are: --" "$script" $word --buidl 1
		grep -q -- '--build' "$work/stderr" || fail "$script does not name its options"
		ends "a short option" 2 "unknown option '-x'" "$script" $word -x 1
		ends "no name" 2 "unknown option '--'" "$script" $word -- 1
		ends "no value at the end" 2 "--build needs a value" "$script" $word --build
		ends "an option for a value" 2 "--build needs a value" "$script" $word --build --help
		ends "no program" 66 "no program in '$work/\$(touch evil)'" "$script" $word --build "$work/\$(touch evil)"
		# the names that --help explains are those that are taken
		for option in $(sed -n 's/^ *\(--[a-z-]*\) .*  .*/\1/p' "$work/head"); do
			ends "$option" 2 "$option needs a value" "$script" $word "$option"
		done
	}
	if [ $word ]; then
		ends "two models" 2 "one model at a time; 'tiny'" "$script" gpt2 tiny
		ends "no model" 2 "which model" "$script" --build "$work"
		ends "a word as an option" 2 "unknown option '--MODEL'" "$script" --MODEL gpt2
	else
		ends "a word" 2 "unknown option 'gpt2'" "$script" gpt2
	fi
done

# Values arrive whole, where the list says.
cat > "$work/try.sh" << END
# head
set -eu
. "$bench/common.sh"
word='' one='' two_words='' other=''
take_options 'WORD one two-words three=other' "\$@"
echo "\$word|\$one|\$two_words|\$other"
END
got=$(sh "$work/try.sh" --two-words 'a  "$(echo b)" *' --one '' in --three=x 2>&1 || true)
[ "$got" = "edgepipe: error: unknown option '--three=x'; there are: --one --two-words --three" ] || fail "a value after =: $got"
got=$(sh "$work/try.sh" --two-words 'a  "$(echo b)" *' --one 1 in --three -4 --one '')
[ "$got" = 'in||a  "$(echo b)" *|-4' ] || fail "values: $got"
[ $failed = 0 ] || exit 1
echo "ok"
