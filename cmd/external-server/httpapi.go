package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/httpapi/keys"
)

// newHTTPAPICommand manages the API keys of the embedded HTTP API (HTTP-2).
func newHTTPAPICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "http-api",
		Short: "Manage the embedded Fleet Protocol HTTP API",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	key := &cobra.Command{
		Use:   "key",
		Short: "Make, list and remove API keys",
		Long: `Make, list and remove the API keys of the embedded HTTP API.

The keys file is the one of http_api.keys_file in the configuration unless given
with --keys-file. It holds hashes: a key is shown once, when it is made. A running
server takes changes over within seconds.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var file, configPath string
	key.PersistentFlags().StringVar(&file, "keys-file", "", "keys file; default: http_api.keys_file of the configuration")
	key.PersistentFlags().StringVarP(&configPath, "config", "c", "./config/config.json", "configuration file")
	path := func() (string, error) { return keysFile(file, configPath) }
	key.AddCommand(
		&cobra.Command{
			Use:   "add NAME",
			Short: "Make a key and print it: it cannot be shown again",
			Args:  oneName,
			RunE: func(cmd *cobra.Command, args []string) error {
				p, err := path()
				if err != nil {
					return err
				}
				made, err := keys.Add(p, args[0], time.Now())
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "Key %q was added to %s. It is shown this once:\n", args[0], p)
				_, err = fmt.Fprintln(cmd.OutOrStdout(), made)
				return err
			},
		},
		&cobra.Command{
			Use:   "list",
			Short: "List the names of the keys",
			Args:  noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				p, err := path()
				if err != nil {
					return err
				}
				list, err := keys.Read(p)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tCREATED")
				for _, k := range list {
					fmt.Fprintf(w, "%s\t%s\n", k.Name, k.Created.Format(time.RFC3339))
				}
				return w.Flush()
			},
		},
		&cobra.Command{
			Use:   "remove NAME",
			Short: "Remove a key",
			Args:  oneName,
			RunE: func(cmd *cobra.Command, args []string) error {
				p, err := path()
				if err != nil {
					return err
				}
				if err := keys.Remove(p, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "Key %q was removed from %s.\n", args[0], p)
				return nil
			},
		},
	)
	cmd.AddCommand(key)
	return cmd
}

func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("expected the name of one key, got %d arguments", len(args))}
	}
	return nil
}

func keysFile(flag, configPath string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	cfg, _, err := config.Load(configPath, os.LookupEnv)
	if err != nil {
		return "", fmt.Errorf("%w (or give --keys-file)", err)
	}
	if cfg.HTTPAPI == nil || cfg.HTTPAPI.KeysFile == "" {
		return "", errors.New("the configuration has no http_api.keys_file; set it or give --keys-file")
	}
	return cfg.HTTPAPI.KeysFile, nil
}
