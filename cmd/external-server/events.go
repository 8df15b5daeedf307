package main

import (
	"context"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"external-server/internal/console"
)

func newEventsCommand() *cobra.Command {
	var endpoint endpointFlags
	var raw, all bool
	var after, car string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Follow what happens: connects, disconnects, joins, faults",
		Args:  noArguments,
		RunE: endpoint.with(func(ctx context.Context, c *console.Client, out, notes io.Writer) error {
			q := url.Values{}
			if all {
				after = "0"
			}
			if after != "" {
				q.Set("after", after)
			}
			if car != "" {
				q.Set("car", car)
			}
			return console.Events(ctx, c, q, out, notes, raw, coloured(out))
		}),
	}
	endpoint.register(cmd)
	cmd.Flags().BoolVar(&raw, "json", false, "print JSON lines")
	cmd.Flags().BoolVar(&all, "all", false, "begin with the oldest event the server knows")
	cmd.Flags().StringVar(&after, "after", "", "begin after the event with this `ID`")
	cmd.Flags().StringVar(&car, "car", "", "only events of the car `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("car", endpoint.completeCar) // fails for unknown flags only
	return cmd
}

func newReloadCommand() *cobra.Command {
	var endpoint endpointFlags
	var all bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Put the changed configuration file in force, without restart",
		Long: `reload makes the running server read its configuration file again. Everything that
can fail is tried first: with an error nothing has changed and the exit code is 1.
Unchanged cars keep their sessions. SIGHUP does the same.

With --all the other replicas of the cluster follow, one after the other, each with its
own file. When the file of the asked server is wrong, none is touched.`,
		Args: noArguments,
		RunE: endpoint.with(func(ctx context.Context, c *console.Client, out, _ io.Writer) error {
			return say(out)(c.Reload(ctx, all))
		}),
	}
	endpoint.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "also reload the other replicas of the cluster")
	return cmd
}

func newLogLevelCommand() *cobra.Command {
	var endpoint endpointFlags
	var reset bool
	cmd := &cobra.Command{
		Use:   "log-level [COMPONENT [LEVEL]]",
		Short: "Show or change the log levels of a running server",
		Long: `Without arguments, log-level shows the level of every component. With a component
and a level (DEBUG, INFO, WARNING, ERROR, CRITICAL) it sets it until the server
ends; with --reset the component follows the configuration again.`,
		Example: "  external-server log-level car DEBUG\n  external-server log-level car --reset",
	}
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case reset && len(args) == 1, !reset && (len(args) == 0 || len(args) == 2):
			return nil
		case reset:
			return usageError{errOneComponent}
		}
		return usageError{errComponentAndLevel}
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return endpoint.with(func(ctx context.Context, c *console.Client, out, _ io.Writer) error {
			switch len(args) {
			case 0:
				return console.LogLevels(ctx, c, out)
			case 1:
				return meantComponent(ctx, c, args[0], say(out)(console.SetLogLevel(ctx, c, args[0], "")))
			}
			return meantComponent(ctx, c, args[0], say(out)(console.SetLogLevel(ctx, c, args[0], args[1])))
		})(cmd, args)
	}
	cmd.ValidArgsFunction = endpoint.completeLevel
	endpoint.register(cmd)
	cmd.Flags().BoolVar(&reset, "reset", false, "give the component the level of the configuration again")
	return cmd
}
