package main

import (
	"strings"
	"testing"
)

func TestRunningConfig(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/local/bin/external-server -c /etc/a.json":                      "/etc/a.json",
		"/usr/local/bin/external-server --config=/etc/a.json --tls":          "/etc/a.json",
		"/usr/local/bin/external-server /etc/a.json":                         "/etc/a.json",
		"/sbin/docker-init -- /usr/local/bin/external-server -c /etc/a.json": "/etc/a.json",
		"/usr/local/bin/external-server":                                     defaultConfig,
		"/usr/local/bin/external-server --unknown -c /etc/a.json":            "",
		"/usr/local/bin/external-server simulate -c /etc/a.json":             "",
		"/usr/local/bin/external-server health":                              "",
		"/sbin/init":                                                         "",
		"sh -c external-server":                                              defaultConfig,
		"":                                                                   "",
	} {
		path, ok := runningConfig([]byte(strings.ReplaceAll(line, " ", "\x00") + "\x00"))
		if path != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", line, path, ok, want)
		}
	}
}
