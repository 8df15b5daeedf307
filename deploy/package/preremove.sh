#!/bin/sh
# Before removal; not before an upgrade (deb: $1 = upgrade, rpm: $1 = 1).
set -e
case "$1" in
remove | 0)
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		systemctl disable --now external-server.service
	fi
	;;
esac
