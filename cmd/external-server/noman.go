//go:build !manual

package main

import "github.com/spf13/cobra"

// buildCommands are the commands that only the build of packages has; see man.go.
func buildCommands() []*cobra.Command { return nil }
