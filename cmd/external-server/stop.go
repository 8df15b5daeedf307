package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/app"
	"external-server/internal/config"
	"external-server/internal/console"
	"external-server/internal/state"
)

// finalOnSignal ends a context that begins as ctx does with app.ErrFinal when the signal
// of a final stop comes, until release is called.
func finalOnSignal(ctx context.Context) (final context.Context, release func()) {
	final, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, console.SignalFinal)
	var done sync.WaitGroup
	done.Go(func() {
		select {
		case <-signals:
			cancel(app.ErrFinal)
		case <-final.Done():
		}
	})
	return final, func() {
		signal.Stop(signals)
		cancel(nil)
		done.Wait()
	}
}

func newStopCommand() *cobra.Command {
	var endpoint endpointFlags
	var final bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the running server and wait until it has ended",
		Long: `stop ends the running server as SIGTERM does, and waits until the process has ended.
With "state_directory" in its configuration the next start goes on with the sessions
of the cars, and no gateway is told.

--final is for a server that does not come back: every session ends, the gateways are
told, and the broker and the state directory forget the sessions.

The server is asked through its admin endpoint. Without one, the lock of the state
directory tells the process, which gets SIGTERM or, for --final, SIGUSR1.`,
		Example: `  external-server stop -c /etc/external-server/config.json
  external-server stop --final -c /etc/external-server/config.json`,
		Args: noArguments,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit <= 0 {
			return usageError{errors.New("--timeout must be positive")}
		}
		stopping, err := endpoint.stop(cmd.Context(), final, cmd.OutOrStdout(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		err = stopping.Wait(cmd.Context(), limit, cmd.ErrOrStderr())
		if cmd.Context().Err() != nil {
			return errInterrupted
		}
		return err
	}
	endpoint.register(cmd)
	cmd.Flags().BoolVar(&final, "final", false, "end every session and tell the gateways: no later start goes on with them")
	cmd.Flags().DurationVar(&limit, "timeout", time.Minute, "longest wait for the end of the process")
	return cmd
}

// stop tells the server to stop, through its endpoint or by the lock of its state directory.
func (f *endpointFlags) stop(ctx context.Context, final bool, out, notes io.Writer) (*console.Stopping, error) {
	client, asked := f.client(notes)
	if asked == nil {
		defer client.Close()
		var stopping *console.Stopping
		stopping, asked = client.Stop(ctx, final, out)
		if asked == nil || !console.Away(asked) || f.admin != "" {
			return stopping, asked
		}
	}
	cfg, _, err := config.Load(cmp.Or(f.config, defaultConfig), os.LookupEnv)
	if err != nil || cfg.StateDirectory == "" {
		return nil, fmt.Errorf("%w; without \"state_directory\" nothing else tells which process it is: send it SIGTERM, or SIGUSR1 for the final stop", asked)
	}
	id, description, err := state.Holder(cfg.StateDirectory)
	switch {
	case errors.Is(err, state.ErrFree):
		return nil, fmt.Errorf("no server is running: no process has the state directory %s", cfg.StateDirectory)
	case err != nil:
		return nil, errors.Join(asked, err)
	}
	return console.StopProcess(id, description, final, out)
}
