#!/bin/sh
# Installs the Debian packages that are missing: those of launch/packages.txt, and any named as arguments.
# Asks for nothing when all are there; needs root or sudo otherwise.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
missing=
for package in $(cat "$here/packages.txt") "$@"; do
	dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' ||
		missing="$missing $package"
done
[ -n "$missing" ] || { echo "edgepipe: no package is missing"; exit 0; }
echo "edgepipe: installing$missing"
command -v apt-get > /dev/null || {
	echo "edgepipe: error: no apt-get here; install the equivalents of these by hand" >&2
	exit 69
}
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo > /dev/null || {
		echo "edgepipe: error: run this as root, or install sudo" >&2
		exit 77
	}
	sudo=sudo
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
{ $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
	> "$log" 2>&1 || { tail -n 20 "$log" >&2; echo "edgepipe: error: apt-get failed" >&2; exit 69; }
