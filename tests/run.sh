#!/bin/sh
# Installs what is missing, builds, and runs every test under CTest.
#
#   sh tests/run.sh            gcc, release: all tests
#   sh tests/run.sh clang      clang with -Werror: builds everything, runs the unit tests
#   sh tests/run.sh asan       AddressSanitizer and UBSan: the unit tests and the MPI programs
#   sh tests/run.sh tsan       ThreadSanitizer: what runs threads in one process
#   sh tests/run.sh fuzz       clang's libFuzzer under ASan and UBSan: every parser for 10 seconds
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
what=${1:-release}
preset="$what" build="build-$what" compiler=gcc tests='.*' without='^$'
case $what in
release) build=build ;;
clang) preset=release compiler=clang tests='^check_' ;;
asan) tests='^(check_|mpi_)' without='_avx2$' ;;
fuzz) compiler=clang ;;
tsan) tests='^check_(threads|comm|shaped|stream|stream_faults)$' ;;
*)
	echo "edgepipe: error: '$what' is not one of release, clang, asan, tsan, fuzz" >&2
	exit 2
	;;
esac

echo "edgepipe: packages (launch/packages.txt)"
if [ $compiler = clang ]; then
	sh launch/install.sh coinor-cbc clang
else
	sh launch/install.sh coinor-cbc
fi

echo "edgepipe: building with $compiler into $build/"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
	cmake --preset "$preset" -B "$build" -G Ninja -DCMAKE_C_COMPILER=$compiler \
		-DEDGEPIPE_WERROR=ON -DEDGEPIPE_TESTS=ON -DEDGEPIPE_BENCH=ON &&
		if [ $what = fuzz ]; then cmake --build "$build" --target fuzz; else cmake --build "$build"; fi
} > "$log" 2>&1 || {
	cat "$log" >&2
	exit 1
}
grep -E '^-- (edgepipe|  )' "$log" || true

if [ $what = fuzz ]; then
	echo "edgepipe: fuzzing"
	sh tests/fuzz/run.sh "$build" 10
	exit 0
fi
echo "edgepipe: testing"
. launch/env.sh
cd "$build"
ctest -j 2 --output-on-failure --no-tests=error -R "$tests" -E "$without"
