#!/bin/sh
# After removal. User, state and logs stay, as the configuration does; purging
# the deb removes state and logs.
set -e
if [ "$1" = purge ]; then
	rm -rf "${DPKG_ROOT:-}/var/lib/external-server" "${DPKG_ROOT:-}/var/log/external-server"
fi
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
