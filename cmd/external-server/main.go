// Command external-server is the cloud end of the Fleet Protocol. One file per
// sub-command; flags become options of package app and nothing else happens
// here.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes (CLI-8, CLI-9).
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	// exitForced is what a shell reports for a process ended by SIGINT: the
	// second signal stops at once, and a check that was interrupted has no result.
	exitForced = 130
)

func main() { os.Exit(run(os.Args[1:])) }

// usageError marks mistakes in the call itself (CLI-8).
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// silentError carries an exit code; its text was printed already.
type silentError struct{}

func (silentError) Error() string { return "failed" }

// movedError says that another program does what a command did.
type movedError struct{ what, instead string }

func (e movedError) Error() string { return e.what + " is a program of its own: " + e.instead }

// errInterrupted is what a command returns that a signal kept from its result.
var errInterrupted = errors.New("interrupted")

func run(args []string) int {
	ctx, stop := signalContext()
	defer stop()
	root := newRootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	var moved movedError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, silentError{}):
		return exitError
	case errors.Is(err, errInterrupted):
		fmt.Fprintf(os.Stderr, "external-server: %v\n", err)
		return exitForced
	case errors.As(err, &moved):
		fmt.Fprintf(os.Stderr, "external-server: error: %v\n", moved)
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "%s\nexternal-server: error: %v\n", cmd.UseLine(), err)
		fmt.Fprintf(os.Stderr, "Run '%s --help' for the options.\n", cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(os.Stderr, "external-server: error: %v\n", err) // CLI-25
		return exitError
	}
}

// signalContext ends with the first SIGINT or SIGTERM (CLI-15, CLI-24); the
// second one ends the process at once (CLI-16).
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(exitForced)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

func newRootCommand() *cobra.Command {
	flags := &serveFlags{}
	root := &cobra.Command{
		Use:   "external-server [flags] [CONFIG]",
		Short: "The cloud end of the Fleet Protocol",
		Long: `external-server keeps one session per car with the module gateways, hands the
statuses of their devices to modules and carries the modules' commands back.

Without a sub-command it serves the cars of the configuration file until SIGINT
or SIGTERM. With "state_directory" the next start goes on with the sessions then;
SIGUSR1, as external-server stop --final, ends them. The file is ./config/config.json unless given with -c or as the
argument.`,
		Args:          oneArgument,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd, flags, args)
		},
	}
	root.SetFlagErrorFunc(wrongFlag)
	flags.register(root)
	root.AddCommand(
		newCarCommand(),
		newCarsCommand(),
		newBenchCommand(),
		newCheckCommand(),
		newConfigCommand(),
		newDemoCommand(), newDemoPartCommand(),
		newHealthCommand(),
		newDisconnectCommand(),
		newEventsCommand(),
		newHTTPAPICommand(),
		newLogLevelCommand(),
		newModulesCommand(),
		newModuleCommand(), newModuleHostCommand(), newModuleReaperCommand(),
		newReannounceCommand(),
		newReloadCommand(),
		newSniffCommand(),
		newSimulateCommand(),
		newStopCommand(),
		newDrainCommand(),
		newVersionCommand(),
	)
	root.AddCommand(buildCommands()...)
	return root
}

func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && !cmd.HasParent() {
		if err := mistypedCommand(cmd, args[0]); err != nil {
			return err
		}
	}
	if len(args) > 1 {
		return usageError{fmt.Errorf("expected one configuration file, got %d arguments", len(args))}
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q%s", args[0], didYouMean(args[0], subcommands(cmd)))}
	}
	return nil
}

// newBenchCommand tells those who know the command of earlier releases what to run.
func newBenchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "bench", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return movedError{"bench", "run `go run ./cmd/bench` or `make bench-check` in the source tree"}
		},
	}
}
