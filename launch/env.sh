# Sourced, not run:  . launch/env.sh
# What Open MPI insists on where five ranks share a small or root machine, and the way to the edgepipe that was
# built here. After it, this works:  mpirun -np 5 edgepipe train topologies/campus.yaml
# shellcheck shell=sh

export OMPI_MCA_rmaps_base_oversubscribe=1      # more ranks than cores
export OMPI_MCA_hwloc_base_binding_policy=none  # edgepipe counts the cores itself; mpirun would give it one
export OMPI_MCA_mpi_yield_when_idle=1
export OMP_WAIT_POLICY=passive
if [ "$(id -u)" = 0 ]; then
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Containers often forbid reading another process's memory; then Open MPI's single-copy transport only complains.
if [ -e /.dockerenv ] || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2> /dev/null || echo 0)" != 0 ]; then
	export OMPI_MCA_btl_vader_single_copy_mechanism=none
fi

# The program: beside this file's checkout where the shell says where that is, or where it was installed from, else
# in a checkout above the working directory.
# shellcheck disable=SC3028,SC3054
edgepipe_here=$(dirname -- "${BASH_SOURCE:-$0}")
edgepipe_root=$PWD
while [ ! -e "$edgepipe_root/launch/env.sh" ] && [ "$edgepipe_root" != / ]; do
	edgepipe_root=$(dirname -- "$edgepipe_root")
done
for edgepipe_bin in "$edgepipe_here/../../bin" "$edgepipe_here/../build" "$edgepipe_root/build"; do
	if [ -x "$edgepipe_bin/edgepipe" ]; then
		edgepipe_bin=$(cd "$edgepipe_bin" && pwd)
		case ":$PATH:" in
		*":$edgepipe_bin:"*) ;;
		*) export PATH="$edgepipe_bin:$PATH" ;;
		esac
		break
	fi
done
case $- in
*i*) command -v edgepipe > /dev/null || echo "edgepipe: env.sh: no edgepipe on the PATH: build it, or source this file from its checkout" >&2 ;;
esac
unset edgepipe_here edgepipe_root edgepipe_bin
