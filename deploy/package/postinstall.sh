#!/bin/sh
# After installation and upgrade, of the deb ($1 = configure, $2 = the version
# before) and of the rpm ($1 = the number of versions installed). DPKG_ROOT is
# set by dpkg when it installs into another root folder.
set -e
root="${DPKG_ROOT:-}"
if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers --root="$root/" external-server.conf
elif ! grep -q '^external-server:' "$root/etc/passwd"; then
	useradd --root "$root/" --system --user-group --no-create-home --home-dir /var/lib/external-server --shell /usr/sbin/nologin external-server
fi
# What systemd would make at the first start (StateDirectory, LogsDirectory of the
# unit), because the configuration is checked before.
owner=$(sed -n 's/^external-server:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p' "$root/etc/passwd")
for dir in var/lib/external-server var/log/external-server; do
	install -d -m 0750 -o "${owner%:*}" -g "${owner#*:}" "$root/$dir"
done
# The configuration may hold passwords: for root and the server only.
group=$(sed -n 's/^external-server:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
chgrp -R "$group" "$root/etc/external-server"
chmod 0750 "$root/etc/external-server"
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# A running server is replaced by the new version; nothing is started that
	# was not running.
	systemctl try-restart external-server.service
fi
if [ "$1" = configure ] && [ -z "$2" ] || [ "$1" = 1 ]; then
	echo "external-server is installed. Edit /etc/external-server/config.json, then:"
	echo "  runuser -u external-server -- external-server check /etc/external-server/config.json"
	echo "  systemctl enable --now external-server"
fi
