package main

import (
	"github.com/spf13/cobra"

	"external-server/internal/module/host"
)

func newModuleHostCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "module-host LIBRARY",
		Short:  "Run one module library for a server (started by the server itself)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return host.RunLibrary(cmd.Context(), args[0])
		},
	}
}

func newModuleReaperCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "module-reaper MODULE",
		Short:  "Start one module process and end what it leaves behind (started by the server itself)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(*cobra.Command, []string) error { return host.RunReaper() },
	}
}
