package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"external-server/internal/broker"
	"external-server/internal/logging"
)

// newDemoPartCommand runs what the demo starts as processes of their own. They end with
// their standard input, so that none outlives the demo.
func newDemoPartCommand() *cobra.Command {
	part := &cobra.Command{
		Use:    "demo-part",
		Short:  "Run the broker or the server of the demo (started by the demo itself)",
		Hidden: true,
	}
	var listen string
	brokerPart := &cobra.Command{
		Use:  "broker",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, end := untilInputEnds(cmd)
			defer end()
			return serveDemoBroker(ctx, cmd, listen)
		},
	}
	brokerPart.Flags().StringVar(&listen, "listen", "127.0.0.1:1883", "where the broker listens")
	flags := &serveFlags{}
	var serverPart *cobra.Command
	flags.ready = func() { tellReady(serverPart) }
	serverPart = &cobra.Command{
		Use:  "server",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, end := untilInputEnds(cmd)
			defer end()
			cmd.SetContext(ctx)
			return serve(cmd, flags, args)
		},
	}
	flags.register(serverPart)
	part.AddCommand(brokerPart, serverPart, newDemoEtcdCommand())
	return part
}

// untilInputEnds returns the context of the command, which also ends with its standard
// input.
func untilInputEnds(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(cmd.Context())
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, cmd.InOrStdin())
		cancel()
	}()
	return ctx, cancel
}

// tellReady says that the process has its ports.
func tellReady(cmd *cobra.Command) { fmt.Fprintln(cmd.OutOrStdout(), "ready") }

// serveDemoBroker is a broker that keeps sessions, so that servers can come and go.
func serveDemoBroker(ctx context.Context, cmd *cobra.Command, listen string) error {
	logs, err := logging.New(logging.Options{Console: logging.Sink{Use: true, Level: slog.LevelWarn}, Stderr: cmd.ErrOrStderr(), Component: "MQTT broker"})
	if err != nil {
		return err
	}
	defer logs.Close()
	b, err := broker.New(broker.Options{Listen: listen, KeepSessions: true, Logger: logs.Logger()})
	if err != nil {
		return err
	}
	if err := b.Start(); err != nil {
		return err
	}
	tellReady(cmd)
	<-ctx.Done()
	return b.Close()
}
