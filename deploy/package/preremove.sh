#!/bin/sh
# Before removal; not before an upgrade (deb: $1 = upgrade, rpm: $1 = 1).
set -e
case "$1" in
remove | 0)
	# It does not come back: sessions end, gateways are told (SIGUSR1). An upgrade goes on
	# with them.
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		pid=$(systemctl show --property=MainPID --value external-server.service 2>/dev/null || true)
		if [ "${pid:-0}" -gt 0 ]; then
			kill -USR1 "$pid" 2>/dev/null || true
		fi
		systemctl disable --now external-server.service
	fi
	;;
esac
