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

# The checkout: beside this file where the shell says where that is, else above the working directory.
# shellcheck disable=SC3028,SC3054
edgepipe_root=$(dirname "${BASH_SOURCE:-$0}")/..
[ -e "$edgepipe_root/launch/env.sh" ] || edgepipe_root=$PWD
while [ ! -e "$edgepipe_root/launch/env.sh" ] && [ "$edgepipe_root" != / ]; do
	edgepipe_root=$(dirname "$edgepipe_root")
done
if [ -x "$edgepipe_root/build/edgepipe" ]; then
	edgepipe_build=$(cd "$edgepipe_root/build" && pwd)
	case ":$PATH:" in
	*":$edgepipe_build:"*) ;;
	*) export PATH="$edgepipe_build:$PATH" ;;
	esac
	unset edgepipe_build
fi
unset edgepipe_root
