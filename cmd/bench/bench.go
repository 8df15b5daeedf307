// Command bench measures the server on this machine, beside the cheapest possible
// responder. It holds a server of its own: the code that external-server runs, with a
// module that takes everything.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"external-server/internal/lab/bench"
	"external-server/internal/module/host"
)

// Exit codes, as those of external-server.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// usageError marks mistakes in the call itself.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() {
	host.RunIfHost() // the server that is measured starts this program for module processes
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the process at once
	root := newCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(os.Stderr, "bench: error: %v\n", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintf(os.Stderr, "Run '%s --help' for the options.\n", cmd.CommandPath())
		return exitUsage
	}
	return exitError
}

// flags are those of bench and its sub-commands.
type flags struct {
	opts   bench.Options
	rows   string
	report string
}

func (f *flags) register(cmd *cobra.Command, runs int, seconds float64) {
	fs := cmd.Flags()
	o := &f.opts
	fs.StringVar(&o.Broker, "broker", "", "measure on this MQTT broker, `HOST:PORT`, instead of the embedded one")
	fs.BoolVar(&o.Mosquitto, "mosquitto", false, "start mosquitto and measure on it")
	fs.IntVar(&o.Runs, "runs", runs, "runs of server and echo, in turns")
	fs.Float64Var(&o.Seconds, "seconds", seconds, "length of one measurement")
	fs.IntVar(&o.Big, "big", 10_000, "cars of the large measurements")
	fs.Float64Var(&o.BigRate, "big-rate", 5000, "statuses per second of all these cars together")
	fs.Float64Var(&o.BigSeconds, "big-seconds", 30, "length of the large measurements")
	fs.StringVar(&o.Profiles, "profiles", "", "write CPU and heap profiles of the measured processes to this existing `DIRECTORY`")
	fs.StringVar(&f.report, "report", "", "write the figures as JSON to this `FILE` as well")
	cmd.MarkFlagsMutuallyExclusive("broker", "mosquitto")
}

// options completes the options.
func (f *flags) options(cmd *cobra.Command) (bench.Options, error) {
	o := f.opts
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	o.Self = []string{self, "child"}
	if f.rows != "" {
		if o.Rows, err = regexp.Compile(f.rows); err != nil {
			return o, usageError{fmt.Errorf("--rows: %w", err)}
		}
	}
	o.Progress = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	return o, nil
}

// run measures and writes what was measured, also when it was cut short.
func (f *flags) run(cmd *cobra.Command, measure func(context.Context, bench.Options) (bench.Report, error)) error {
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	r, failure := measure(cmd.Context(), o)
	if r.Machine == "" {
		return failure
	}
	r.Command = "bench " + strings.Join(os.Args[1:], " ")
	if len(r.Results) > 0 {
		if err := r.WriteTable(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if f.report != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(f.report, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return failure
}

func newCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this server on this machine, beside the cheapest possible responder",
		Long: `bench measures the server and an echo, the cheapest responder there can be, on the
same broker and under the same load, in turns, and prints a table of the medians
with their ratio. Server, echo and broker are processes of their own on this
machine. A full run takes some minutes; --rows chooses.`,
		Example: `  bench --mosquitto
  bench --mosquitto --rows '^closed|storm' --runs 5
  bench growth --mosquitto --report growth.json
  bench plot growth.json > growth.svg`,
		Args:          noArguments,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Run) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f.register(cmd, 3, 4)
	cmd.Flags().StringVar(&f.rows, "rows", "", "measure only what this regular expression matches: library-1, library-10, library-100,\nlibrary-open-100, library-start-N, library-idle-N, library-connected-N, big-library, closed-1, closed-10, closed-100, open-100,\nstorm-100, storm-300, commands, start-N, idle-N, big-server, big-builtin,\nkept-open, kept-open-5, kept-100, kept-connections, cluster-100, cluster-open, cluster-big, cluster-etcd, flood, restart, memory-N")
	cmd.AddCommand(newCheckCommand(), newGrowthCommand(), newPlotCommand(), newChildCommand())
	return cmd
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func newCheckCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Measure briefly and fail when the server has become much slower than the echo",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Check) },
	}
	f.register(cmd, 3, 2)
	return cmd
}

func newGrowthCommand() *cobra.Command {
	f := &flags{}
	cmd := &cobra.Command{
		Use:   "growth",
		Short: "Measure over growing numbers of cars; bench plot draws the report",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Growth) },
	}
	f.register(cmd, 3, 2)
	return cmd
}

func newPlotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "plot REPORT",
		Short: "Draw a report of bench growth as SVG on standard output",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("expected the report to draw, got %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			var r bench.Report
			if err := json.Unmarshal(text, &r); err != nil {
				return fmt.Errorf("%s is not a report of bench: %w", args[0], err)
			}
			svg, err := bench.Plot(r)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			_, err = cmd.OutOrStdout().Write([]byte(svg))
			return err
		},
	}
}

// newChildCommand makes a server, an echo or a broker of the process: bench starts it.
func newChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "child JSON",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.RunChild(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
