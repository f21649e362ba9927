#!/bin/sh
# The options of the measuring scripts in bench/: help, what is unknown, what lacks a value, where no program is.
#
#   EDGEPIPE_SOURCE=. sh tests/bench_options_test.sh
set -eu
: "${EDGEPIPE_SOURCE:?the checkout}"
. "$EDGEPIPE_SOURCE/tests/suite.sh"
bench=$(cd "$EDGEPIPE_SOURCE/bench" && pwd)

# refuses SCRIPT NAME CODE WORDS OPTIONS...
refuses() {
	script=$1 what=$2 with=$3 says=$4
	shift 4
	ends "$script, $what" "$with" "$says" sh "$bench/$script" "$@"
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
		refuses "$script" "an unknown option" 2 "unknown option '--buidl'; there are: --" $word --buidl 1
		grep -q -- '--build' "$work/stderr" || fail "$script does not name its options"
		refuses "$script" "a short option" 2 "unknown option '-x'" $word -x 1
		refuses "$script" "no name" 2 "unknown option '--'" $word -- 1
		refuses "$script" "no value at the end" 2 "--build needs a value" $word --build
		refuses "$script" "an option for a value" 2 "--build needs a value" $word --build --help
		refuses "$script" "no program" 66 "no program in '$work/\$(touch evil)'" $word --build "$work/\$(touch evil)"
		# the names that --help explains are those that are taken
		for option in $(sed -n 's/^ *\(--[a-z-]*\) .*  .*/\1/p' "$work/head"); do
			refuses "$script" "$option" 2 "$option needs a value" $word "$option"
		done
	}
	if [ $word ]; then
		refuses "$script" "two models" 2 "one model at a time; 'tiny'" gpt2 tiny
		refuses "$script" "no model" 2 "which model" --build "$work"
		refuses "$script" "a word as an option" 2 "unknown option '--MODEL'" --MODEL gpt2
	else
		refuses "$script" "a word" 2 "unknown option 'gpt2'" gpt2
	fi
done

# Values arrive whole, where the list says.
cat > "$work/try.sh" << END
# head
set -eu
. "$bench/common.sh"
word='' one='' two_words='' other='' many_words=''
take_options 'WORD one two-words three=other many-words+' "\$@"
echo "\$word|\$one|\$two_words|\$other|\$(echo "\$many_words" | tr '\n' ,)"
END
got=$(sh "$work/try.sh" --two-words 'a  "$(echo b)" *' --one '' in --three=x 2>&1 || true)
[ "$got" = "edgepipe: error: unknown option '--three=x'; there are: --one --two-words --three --many-words" ] || fail "a value after =: $got"
got=$(sh "$work/try.sh" --two-words 'a  "$(echo b)" *' --one 1 in --three -4 --one '' --many-words '$(a)' \
	--many-words 'b  "=c')
[ "$got" = 'in||a  "$(echo b)" *|-4|,$(a),b  "=c,' ] || fail "values: $got"
finish
