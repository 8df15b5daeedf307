package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"external-server/internal/lab/bench"
)

// benchFlags are the flags of bench and its sub-commands.
type benchFlags struct {
	opts   bench.Options
	rows   string
	report string
}

func (f *benchFlags) register(cmd *cobra.Command, runs int, seconds float64) {
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
func (f *benchFlags) options(cmd *cobra.Command) (bench.Options, error) {
	o := f.opts
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	o.Self = []string{self, "bench", "child"}
	if f.rows != "" {
		if o.Rows, err = regexp.Compile(f.rows); err != nil {
			return o, usageError{fmt.Errorf("--rows: %w", err)}
		}
	}
	o.Progress = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	return o, nil
}

// run measures and writes what was measured, also when it was cut short.
func (f *benchFlags) run(cmd *cobra.Command, measure func(context.Context, bench.Options) (bench.Report, error)) error {
	o, err := f.options(cmd)
	if err != nil {
		return err
	}
	r, failure := measure(cmd.Context(), o)
	if r.Machine == "" {
		return failure
	}
	r.Command = "external-server " + strings.Join(os.Args[1:], " ")
	if len(r.Results) > 0 {
		if err := r.WriteTable(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if f.report != "" {
		if err := writeReport(cmd.OutOrStdout(), f.report, r); err != nil {
			return err
		}
	}
	return failure
}

func newBenchCommand() *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this server on this machine, beside the cheapest possible responder",
		Long: `bench measures the server and an echo, the cheapest responder there can be, on the
same broker and under the same load, in turns, and prints a table of the medians
with their ratio. Server, echo and broker are processes of their own on this
machine. A full run takes some minutes; --rows chooses.`,
		Example: `  external-server bench --mosquitto
  external-server bench --mosquitto --rows '^closed|storm' --runs 5
  external-server bench growth --mosquitto --report growth.json
  external-server bench plot growth.json > growth.svg`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Run) },
	}
	f.register(cmd, 3, 4)
	cmd.Flags().StringVar(&f.rows, "rows", "", "measure only what this regular expression matches: closed-1, closed-10, closed-100, open-100,\nstorm-100, storm-300, commands, start-N, idle-N, big-server, big-builtin, flood, restart, memory-N")
	cmd.AddCommand(newBenchCheckCommand(), newBenchGrowthCommand(), newBenchPlotCommand(), newBenchChildCommand())
	return cmd
}

func newBenchCheckCommand() *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Measure briefly and fail when the server has become much slower than the echo",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Check) },
	}
	f.register(cmd, 3, 2)
	return cmd
}

func newBenchGrowthCommand() *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "growth",
		Short: "Measure over growing numbers of cars; bench plot draws the report",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.run(cmd, bench.Growth) },
	}
	f.register(cmd, 3, 2)
	return cmd
}

func newBenchPlotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "plot REPORT",
		Short: "Draw a report of bench growth as SVG on standard output",
		Args:  cobra.ExactArgs(1),
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

// newBenchChildCommand is for bench alone, which starts it.
func newBenchChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "child JSON",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.RunChild(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}
