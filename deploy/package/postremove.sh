#!/bin/sh
# After removal. User, state, logs, tokens and keys stay, as the configuration does;
# purging the deb removes them, but for the user.
set -e
if [ "$1" = purge ]; then
	for file in admin-token monitoring-token api-key api-keys.json api-keys.json.lock; do
		rm -f "${DPKG_ROOT:-}/etc/external-server/$file"
	done
	rmdir --ignore-fail-on-non-empty "${DPKG_ROOT:-}/etc/external-server" 2>/dev/null || true
	rm -rf "${DPKG_ROOT:-}/var/lib/external-server" "${DPKG_ROOT:-}/var/log/external-server"
fi
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
