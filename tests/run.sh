#!/bin/sh
# Installs what is missing, builds, and runs every test under CTest.
#
#   sh tests/run.sh            gcc, release: all tests
#   sh tests/run.sh clang      clang with -Werror: builds everything, runs the unit tests
#   sh tests/run.sh asan       AddressSanitizer and UBSan: the unit tests and the MPI programs
#   sh tests/run.sh tsan       ThreadSanitizer: what runs threads in one process
#   sh tests/run.sh fuzz       clang's libFuzzer under ASan and UBSan: every parser for 10 seconds
#
# Only the release runs the tests a second time where there is AVX2 alone: that is about libraries, not about our code.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
what=${1:-release}
preset="$what" build="build-$what" compiler=gcc tests='.*' without='_avx2$' targets=all bench=OFF
case $what in
release) build=build without='^$' bench=ON ;;
clang) preset=release compiler=clang tests='^check_' bench=ON ;;
asan) tests='^(check_|mpi_)' ;;
tsan)
	targets='check_threads check_comm check_shaped check_stream check_stream_faults check_identity'
	tests="^($(echo "$targets" | tr ' ' '|'))\$"
	;;
fuzz) compiler=clang targets=fuzz ;;
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
		-DCMAKE_C_COMPILER_LAUNCHER="$(command -v ccache || true)" \
		-DEDGEPIPE_WERROR=ON -DEDGEPIPE_TESTS=ON -DEDGEPIPE_BENCH=$bench &&
		cmake --build "$build" --target $targets
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
echo "edgepipe: testing"	# -j: half cores, see tests/CMakeLists.txt
. launch/env.sh
cd "$build"
ctest -j 4 --output-on-failure --no-tests=error -R "$tests" -E "$without"
