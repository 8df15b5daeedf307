package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"external-server/internal/config"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Tools for configuration files",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration file",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use:   "migrate OLD",
		Short: "Rewrite a configuration file of any format in format D",
		Long: `migrate prints the configuration of the file OLD in format D. What changed is
explained on stderr. The file may name libraries and directories that do not
exist here. The output contains the secrets of the file.

    external-server config migrate old.json > new.json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected one configuration file, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			out, notes, err := config.Migrate(args[0])
			if err != nil {
				return invalidConfiguration(cmd, args[0], err)
			}
			for _, note := range notes {
				fmt.Fprintln(cmd.ErrOrStderr(), note)
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	})
	cmd.AddCommand(newACLCommand())
	return cmd
}

// invalidConfiguration prints several errors itself and returns a single one to
// be printed.
func invalidConfiguration(cmd *cobra.Command, path string, err error) error {
	var problems config.Errors
	if errors.As(err, &problems) && len(problems) > 1 {
		fmt.Fprintf(cmd.ErrOrStderr(), "external-server: error: configuration %s is invalid, %d errors:\n", path, len(problems))
		for _, p := range problems {
			fmt.Fprintln(cmd.ErrOrStderr(), p)
		}
		return silentError{}
	}
	return fmt.Errorf("configuration is invalid: %w", err)
}
