package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newDrainCommand() *cobra.Command {
	var endpoint endpointFlags
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "drain [REPLICA]",
		Short: "Make a replica of a cluster give its cars to the others",
		Long: `drain makes a replica give its cars to the other replicas, shard by shard, and
returns when it serves none any more. No session ends. The replica goes on running,
takes no cars, and can be ended; it takes cars again when it is started anew.

Without REPLICA it is the one behind the admin endpoint. A stop of a replica drains
it by itself: drain is for seeing that nothing is left before.`,
		Example: `  external-server drain -c /etc/external-server/config.json
  external-server drain es-2 --admin https://es-0.example.org:8090`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("expected the name of one replica, got %d arguments", len(args))}
			}
			return nil
		},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit <= 0 {
			return usageError{errors.New("--timeout must be positive")}
		}
		client, err := endpoint.client(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer client.Close()
		replica := ""
		if len(args) > 0 {
			replica = args[0]
		}
		err = client.Drain(cmd.Context(), replica, limit, cmd.OutOrStdout(), cmd.ErrOrStderr())
		if cmd.Context().Err() != nil {
			return errInterrupted
		}
		return err
	}
	endpoint.register(cmd)
	cmd.Flags().DurationVar(&limit, "timeout", 2*time.Minute, "longest wait until it serves no car")
	return cmd
}
