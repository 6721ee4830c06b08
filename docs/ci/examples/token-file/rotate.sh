#!/usr/bin/env bash
# rotate.sh NAME FILE: gives the app password NAME a new password, and puts it into
# FILE, whole or not at all. For the gateway's machine and the gateway's user.
#
# Should FILE not be written, the password is not lost: o365pw show NAME --password
set -euo pipefail
if (($# != 2)); then
	echo 'usage: rotate.sh NAME FILE' >&2
	exit 2
fi
umask 077
new=$(mktemp "$2.XXXXXX")
trap 'rm -f -- "$new"' EXIT
o365pw rotate "$1" >"$new"
mv -- "$new" "$2"
