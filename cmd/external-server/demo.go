package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var library string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole system with three simulated cars",
		Long: `demo runs the server with its embedded broker and HTTP API and three simulated
cars, and tells what happens, until Ctrl-C or for DEMO_SECONDS seconds when that
variable is set.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			duration, err := demoSeconds(os.Getenv("DEMO_SECONDS"))
			if err != nil {
				return err
			}
			// Without a reader of its story the demo ends, and clears up.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGPIPE)
			defer stop()
			return demo.Run(ctx, demo.Options{
				Library:  library,
				Duration: duration,
				Out:      cmd.OutOrStdout(),
				Logger:   slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError})),
			})
		},
	}
	cmd.Flags().StringVar(&library, "module", "", "also load the example module from this `LIBRARY`")
	return cmd
}

func demoSeconds(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 || n > 1e6 {
		return 0, usageError{fmt.Errorf("DEMO_SECONDS is %q, expected a positive number of seconds", text)}
	}
	return time.Duration(n * float64(time.Second)), nil
}
