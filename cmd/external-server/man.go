//go:build manual

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"external-server/internal/tools/man"
)

// buildCommands are the commands that only the build of packages has: the one that
// writes the manual pages. The server does without, because it links a converter of
// Markdown.
func buildCommands() []*cobra.Command {
	return []*cobra.Command{{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected a directory, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return man.Write(cmd.Root(), args[0], version, manualSections)
		},
	}}
}
