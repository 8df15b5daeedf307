package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/console/health"
)

func newHealthCommand() *cobra.Command {
	var configPath, adminURL string
	var ready, running bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health [flags]",
		Short: "Ask a running server whether it is well",
		Long: `health asks the admin endpoint whether the server is alive or, with --ready,
whether it serves: the health check of a container. The exit code is 0 when it
is well, else 1.

The endpoint is that of --admin, or of the configuration file given with -c, or
` + health.DefaultURL + `. A configuration without admin endpoint leaves nothing
to ask; that is said and is no failure. A file that cannot be read, perhaps
because it is being edited, does not make a running server ill: the default
endpoint is asked.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if running {
				// Not being able to read it is like being no server: -c counts.
				if line, err := os.ReadFile("/proc/1/cmdline"); err == nil {
					if path, ok := runningConfig(line); ok {
						configPath = path
					}
				}
			}
			endpoint := &health.Endpoint{URL: health.DefaultURL}
			switch {
			case adminURL != "":
				endpoint.URL = adminURL
			case configPath != "":
				cfg, _, err := config.Load(configPath, os.LookupEnv)
				if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "%v; asking %s\n", err, endpoint.URL)
					break
				}
				if endpoint, err = health.FromConfig(cfg.Admin); err != nil {
					return err
				}
				if endpoint == nil {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "not checked: %s has no admin endpoint\n", configPath)
					return err
				}
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			text, err := endpoint.Ask(ctx, path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&configPath, "config", "c", "", "configuration `PATH` of the running server")
	fs.BoolVar(&running, "running", false, "in a container: the configuration that its main process was started with, if that is a server")
	fs.StringVar(&adminURL, "admin", "", "`URL` of the admin endpoint")
	fs.BoolVar(&ready, "ready", false, "ask whether it serves, not only whether it is alive")
	fs.DurationVar(&timeout, "timeout", 4*time.Second, "how long to wait for the answer")
	return cmd
}
