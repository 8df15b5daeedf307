package main

import (
	"bytes"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// runningConfig returns the configuration file that a command line of /proc names when
// it starts a server, perhaps below an init such as docker-init.
func runningConfig(cmdline []byte) (path string, ok bool) {
	args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
	for i, arg := range args {
		if filepath.Base(arg) != "external-server" {
			continue
		}
		var flags serveFlags
		server := &cobra.Command{}
		flags.register(server)
		if server.ParseFlags(args[i+1:]) != nil {
			return "", false
		}
		rest := server.Flags().Args()
		if len(rest) > 0 {
			if sub, _, err := newRootCommand().Find(rest[:1]); err == nil && sub.HasParent() {
				return "", false // another command
			}
		}
		path, err := flags.path(rest)
		return path, err == nil
	}
	return "", false
}
