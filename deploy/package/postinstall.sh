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
# What the packaged configuration asks for: tokens of the admin endpoint and a key of
# the HTTP API, made once and of this machine alone. A proxy that leads to the server
# must not make everybody an operator.
secret() { # the standard input becomes a file for root and the server
	(umask 077 && cat >"$root/etc/external-server/$1.new")
	[ -s "$root/etc/external-server/$1.new" ]
	chgrp "$group" "$root/etc/external-server/$1.new"
	chmod 0640 "$root/etc/external-server/$1.new"
	mv "$root/etc/external-server/$1.new" "$root/etc/external-server/$1"
}
for token in admin-token monitoring-token; do
	if [ ! -e "$root/etc/external-server/$token" ]; then
		od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | secret "$token"
	fi
done
if [ ! -e "$root/etc/external-server/api-keys.json" ]; then
	"$root/usr/bin/external-server" http-api key add package --keys-file "$root/etc/external-server/api-keys.json" 2>/dev/null | secret api-key
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# A running server is replaced by the new version at once, which goes on with the
	# sessions of the cars; nothing is started that was not running.
	systemctl try-restart external-server.service
fi
if [ "$1" = configure ] && [ -z "$2" ] || [ "$1" = 1 ]; then
	echo "Tokens of the admin endpoint and a key of the HTTP API are in /etc/external-server."
	echo "external-server is installed. Edit /etc/external-server/config.json, then:"
	echo "  runuser -u external-server -- external-server check /etc/external-server/config.json"
	echo "  systemctl enable --now external-server"
fi
