#!/bin/sh
# Servers on one machine: network namespaces around a switch, each behind a card of a given rate and, where asked, with
# a part of a core. For measurements over real TCP between kernels' network stacks, and for whole clusters in tests.
#
#   sh bench/testbed.sh with 3 --rate 100 -- sh bench/testbed.sh mpirun edgepipe train job.yaml
#
#   with N [OPTIONS] -- COMMAND...   up, COMMAND on this machine, always down; ends as COMMAND ended
#   up N [OPTIONS]                   starts N servers, 1 to 32: 10.77.0.1, 10.77.0.2, ...
#   mpirun [OPTIONS] PROGRAM...      one rank on each server; options of mpirun may stand before PROGRAM
#   on I COMMAND...                  COMMAND on server I
#   rate I MBIT                      changes a card, even while programs run
#   down                             ends what runs on the servers, and removes them
#
#   --rate MBIT        of each card, out and in; without it they are as fast as the machine
#   --cpus P1,P2,...   what each server has of the CPU: 100 is one core, max is no limit
#
# Needs root and iproute2, and ends with 77 where that or the kernel is not there: namespaces, tbf, cgroups (version 1
# or 2). One testbed at a time. Nothing shows outside the namespaces.
set -eu
self=$(cd "$(dirname "$0")" && pwd)/testbed.sh
net=10.77.0
hub=edgepipe-hub

fail() {
	echo "edgepipe: error: $1" >&2
	exit "${2:-2}"
}

skip() {
	echo "skipped: $1" >&2
	exit 77
}

# is_count TEXT MOST: a whole number from 1 to MOST
is_count() {
	case $1 in '' | 0* | *[!0-9]* | ????*) return 1 ;; esac
	[ "$1" -le "$2" ]
}

# how many servers are up
servers() {
	ip netns list 2> /dev/null | grep -c '^edgepipe-[0-9]' || true
}

need_server() {
	up=$(servers)
	[ "$up" -gt 0 ] || fail "no testbed is up: sh bench/testbed.sh up N"
	is_count "$1" "$up" || fail "no server '$1': they are 1 to $up"
}

need_machine() {
	[ "$(id -u)" = 0 ] || skip "network namespaces need root"
	for tool in ip tc nsenter unshare; do
		command -v $tool > /dev/null || skip "no $tool here (Debian: iproute2, util-linux)"
	done
}

# -- cards -----------------------------------------------------------------------------------

# shape NAMESPACE DEVICE MBIT: 5 ms of traffic may pass at once, 50 ms wait before anything is dropped
shape() {
	bytes=$(awk -v rate="$3" 'BEGIN { b = int(rate * 625); print b < 16000 ? 16000 : b }')
	tc -n "$1" qdisc replace dev "$2" root tbf rate "${3}mbit" burst "$bytes" latency 50ms
}

# What a server sends is shaped at its card, what it receives at its port of the switch.
card() {
	shape "edgepipe-$1" card "$2" && shape "$hub" "port$1" "$2"
}

is_rate() {
	echo "$1" | grep -qxE '[0-9]{1,6}(\.[0-9]{1,6})?' && [ "$(echo "$1" | tr -d '0.')" ]
}

# -- CPU -------------------------------------------------------------------------------------

# group I: the folder of the CPU group of a server; fails where there are none
group() {
	top=$(awk '$3 == "cgroup" && "," $4 "," ~ ",cpu," { print $2; exit }' /proc/mounts)
	if [ ! "$top" ]; then
		top=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
		[ "$top" ] && grep -qw cpu "$top/cgroup.subtree_control" || return 1
	fi
	echo "$top/edgepipe-$1"
}

# limit I PERCENT: within periods of 20 ms
limit() {
	folder=$(group "$1") && mkdir -p "$folder" 2> /dev/null || return 1
	quota=max
	[ "$2" = max ] || quota=$(($2 * 200))
	if [ -e "$folder/cpu.max" ]; then
		echo "$quota 20000" > "$folder/cpu.max"
	else
		[ $quota != max ] || quota=-1
		echo 20000 > "$folder/cpu.cfs_period_us"
		echo "$quota" > "$folder/cpu.cfs_quota_us"
	fi
}

# -- up and down -----------------------------------------------------------------------------

server() {
	ip netns add "edgepipe-$1"
	ip -n $hub link add "port$1" type veth peer name card netns "edgepipe-$1"
	ip -n $hub link set "port$1" master switch up
	ip -n "edgepipe-$1" link set lo up
	ip -n "edgepipe-$1" addr add "$net.$1/24" dev card
	ip -n "edgepipe-$1" link set card up
}

# parse N [--rate MBIT] [--cpus P1,P2,...] [--]
parse() {
	count='' rate='' cpus=''
	is_count "${1:-}" 32 || fail "how many servers, 1 to 32? For example: sh bench/testbed.sh up 3"
	count=$1
	shift
	while [ "${1:---}" != -- ]; do
		[ $# -ge 2 ] || fail "$1 needs a value"
		case $1 in
		--rate) is_rate "$2" || fail "'$2' is not a rate in Mbit/s"; rate=$2 ;;
		--cpus) cpus=$2 ;;
		*) fail "unknown option '$1'; see --help" ;;
		esac
		shift 2
	done
	[ ! "$cpus" ] || [ "$(echo "$cpus" | tr ',' '\n' | grep -cxE '[1-9][0-9]{0,4}|max')" = "$count" ] ||
		fail "--cpus: $count whole numbers of percent, or max, are needed, not '$cpus'"
}

up() {
	need_machine
	[ "$(servers)" = 0 ] || fail "a testbed is up already; 'sh bench/testbed.sh down' ends it"
	trap 'down' EXIT
	trap 'exit 130' INT TERM
	ip netns add $hub || skip "this machine makes no network namespaces"
	ip -n $hub link add switch type bridge || skip "this kernel has no bridges"
	ip -n $hub link set switch up
	for i in $(seq "$count"); do
		server "$i"
		[ ! "$rate" ] || card "$i" "$rate" || skip "this kernel limits no rates (tc, tbf)"
		percent=$(echo "$cpus" | cut -d, -f"$i")
		[ ! "$percent" ] || limit "$i" "$percent" || skip "this machine has no CPU groups to write to"
	done
	trap - EXIT INT TERM
}

# What runs on the servers: a word to end by itself, then none.
stop() {
	for tries in 1 2 3 4 5 6 7 8 9 10; do
		pids=$(for name in $names; do ip netns pids "$name"; done)
		[ "$pids" ] || return 0
		signal=TERM
		[ "$tries" -lt 6 ] || signal=KILL
		# shellcheck disable=SC2086
		kill -$signal $pids 2> /dev/null || true
		sleep 0.2
	done
}

down() {
	names=$(ip netns list 2> /dev/null | sed -n 's/^\(edgepipe-[0-9a-z]*\).*/\1/p')
	stop
	for name in $names; do
		ip netns del "$name" || true
		folder=$(group "${name#edgepipe-}") || continue
		[ ! -d "$folder" ] || rmdir "$folder" || true
	done
}

# -- programs --------------------------------------------------------------------------------

# on I COMMAND...: with the network, the host name and the CPU of a server, and all files of the machine
on() {
	need_server "$1"
	name=edgepipe-$1
	folder=$(group "$1") && [ -d "$folder" ] && echo $$ > "$folder/cgroup.procs"
	shift
	# shellcheck disable=SC2016
	exec nsenter --net="/run/netns/$name" unshare --uts sh -c 'hostname "$0" && exec "$@"' "$name" "$@"
}

# mpirun starts its daemons with a remote shell; ours is `on`, which finds the server by its address.
run_mpi() {
	need_server 1
	command -v mpirun > /dev/null || skip "no mpirun here"
	hosts=$(seq -f "$net.%g:1" -s , "$up")
	export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
	on 1 mpirun --host "$hosts" --map-by node --bind-to none \
		--mca plm rsh --mca plm_rsh_agent "sh $self ssh" --mca plm_rsh_no_tree_spawn 1 \
		--mca btl tcp,self --mca btl_tcp_if_include "$net.0/24" --mca oob_tcp_if_include "$net.0/24" "$@"
}

command=${1:-}
[ $# = 0 ] || shift
case $command in
up)
	parse "$@"
	up
	;;
with)
	parse "$@"
	while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
	[ $# -ge 2 ] || fail "with: -- and a command are missing"
	shift
	up
	trap 'down' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	status=0
	"$@" || status=$?
	exit $status
	;;
down) need_machine; down ;;
on) need_machine; [ $# -ge 2 ] || fail "on: which server, and what?"; on "$@" ;;
ssh)
	host=$1
	shift
	on "${host##*.}" sh -c "$*"
	;;
mpirun) need_machine; run_mpi "$@" ;;
rate)
	need_machine
	need_server "${1:-}"
	is_rate "${2:-}" || fail "'${2:-}' is not a rate in Mbit/s"
	card "$1" "$2" || skip "this kernel limits no rates (tc, tbf)"
	;;
-h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ;;
*) fail "up, down, with, mpirun, on or rate? See sh bench/testbed.sh --help" ;;
esac
