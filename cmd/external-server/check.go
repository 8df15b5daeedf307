package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"external-server/internal/app/check"
)

func newCheckCommand() *cobra.Command {
	flags := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "check [flags] [CONFIG]",
		Short: "Check the configuration and its module libraries without serving",
		Long: `check loads the configuration, opens every module library, verifies its symbols
and number, creates and destroys one context per car and module, looks at the
files that the server reads and writes at its start, and prints a table. Nothing
is changed: a server may be running meanwhile. Run it as the user of the server,
whose rights count.

The exit code is 0 when nothing was found that prevents the start, else 1. Not
tried are ports that other programs use, names that must be resolved, and the
connections to the broker and to a PostgreSQL database.`,
		Args: oneArgument,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, warnings, err := flags.load(cmd, args)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, w := range warnings {
				fmt.Fprintf(out, "warning: %v\n", w)
			}
			report := check.Configuration(cmd.Context(), cfg)
			for _, w := range report.Warnings {
				fmt.Fprintf(out, "warning: %s\n", w)
			}
			results := report.Modules
			table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "CAR\tMODULE\tFROM\tRESULT")
			failed := 0
			for _, r := range results {
				text := "ok"
				if r.Err != nil {
					text = r.Err.Error()
					failed++
				}
				fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", r.Car, r.Module, r.Origin, text)
			}
			if err := table.Flush(); err != nil {
				return err
			}
			for _, p := range report.Problems {
				fmt.Fprintf(out, "error: %v\n", p)
			}
			switch n := len(report.Problems); {
			case n > 0 && failed > 0:
				return fmt.Errorf("%d settings and %d of %d module contexts failed; the server would not start with %s", n, failed, len(results), cfg.Source)
			case n > 0:
				return fmt.Errorf("%d settings failed; the server would not start with %s", n, cfg.Source)
			case failed > 0:
				return fmt.Errorf("%d of %d module contexts failed; the server would not start with %s", failed, len(results), cfg.Source)
			}
			fmt.Fprintf(out, "%s (format %s): %d cars, %d module contexts, all ok\n", cfg.Source, cfg.Format, len(cfg.Cars), len(results))
			return nil
		},
	}
	flags.register(cmd)
	return cmd
}
