package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/config"
	"external-server/internal/config/tlsfiles"
	"external-server/internal/console"
	"external-server/internal/lab/gateway"
	"external-server/internal/lab/simulate"
)

// simulateFlags are the flags of simulate.
type simulateFlags struct {
	broker   brokerFlags
	opts     simulate.Options
	duration time.Duration
	status   string
	report   string
	check    bool
}

// brokerFlags say how to reach a broker.
type brokerFlags struct {
	address, username, passwordFile string
	tls                             bool
	ca, cert, key                   string
}

func (f *brokerFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.address, "broker", "127.0.0.1:1883", "MQTT broker, `HOST:PORT`")
	fs.StringVar(&f.username, "username", "", "user name for the broker")
	fs.StringVar(&f.passwordFile, "password-file", "", "`FILE` with the password for the broker")
	fs.BoolVar(&f.tls, "tls", false, "connect to the broker with TLS")
	fs.StringVar(&f.ca, "ca", "", "CA certificate `PATH` (PEM), implies --tls; default: those of the system")
	fs.StringVar(&f.cert, "cert", "", "client certificate `PATH` (PEM), implies --tls")
	fs.StringVar(&f.key, "key", "", "private key `PATH` of the client certificate (PEM)")
	cmd.MarkFlagsRequiredTogether("cert", "key")
}

// broker returns what the flags say.
func (f *brokerFlags) broker() (gateway.Broker, error) {
	b := gateway.Broker{Address: f.address, Username: f.username}
	if f.passwordFile != "" {
		text, err := os.ReadFile(f.passwordFile)
		if err != nil {
			return b, fmt.Errorf("--password-file: %w", err)
		}
		b.Password = trimNewline(string(text))
	}
	if !f.tls && f.ca == "" && f.cert == "" {
		return b, nil
	}
	client, err := tlsfiles.Client(&config.TLS{CAFile: f.ca, CertFile: f.cert, KeyFile: f.key})
	if err != nil {
		return b, err
	}
	var cfg *tls.Config
	if cfg, err = client(); err == nil {
		b.TLS = cfg
	}
	return b, err
}

func trimNewline(s string) string {
	for len(s) > 0 && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

func newSimulateCommand() *cobra.Command {
	f := &simulateFlags{}
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Let a fleet of simulated cars drive a server, and measure what they see",
		Long: `simulate runs a fleet of faithful module gateways against any External Server, on
any MQTT broker. It shows what happens while it runs and writes one JSON report to
standard output (or --report) at the end: cars connected, sessions dropped and why,
round trips per second, latencies, violations of the protocol, each with the rule
of docs/protocol.md and what it means.

The cars of module 1 drive tours through a small town until a command sends them
elsewhere; those of module 2 have a panel with lamps and a button. Cars of other
modules send {"pressed":false,...}, unless --status says what the module expects:
a JSON text, or a file with one status, or one per line, which are sent in turn.

With --rate, latencies count from the moment a status was planned to be sent, so a
server that stalls cannot hide it (coordinated omission). With --closed each car
sends its next status when the last one is answered.

Ctrl-C ends the run early; the report is written all the same.`,
		Example: `  external-server simulate --company fleet --cars 100 --rate 1 --duration 1m
  external-server simulate --company fleet --cars 10000 --devices 2 --rate 1 --ramp 30s
  external-server simulate --company fleet --cars 50 --module 1 --devices 1 --duration 1h
  external-server simulate --company fleet --module 42 --device-type 1 --status '{"dark": true}'
  external-server simulate --company fleet --cars 50 --rate 2 --faulty 0.2 --lose 0.01 --restart 2`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runSimulation(cmd, f) },
	}
	fs := cmd.Flags()
	f.broker.register(cmd)
	o := &f.opts
	fs.StringVar(&o.Company, "company", "", "company of the cars (required)")
	fs.StringVar(&o.Prefix, "prefix", "car_", "names of the cars: this and a number")
	fs.IntVar(&o.First, "first", 1, "number of the first car")
	fs.IntVar(&o.Cars, "cars", 1, "number of cars")
	fs.IntVar(&o.Devices, "devices", 2, "devices per car")
	fs.Int32Var(&o.Module, "module", 1000, "module number of the devices")
	fs.Int64Var(&o.DeviceType, "device-type", -1, "device type; default: 1 for the modules 1 to 3, else 0")
	fs.IntVar(&o.Payload, "payload", 100, "length of a status in bytes")
	fs.StringVar(&f.status, "status", "", "what the devices send: `JSON|FILE`")
	fs.Float64Var(&o.Rate, "rate", 0, "statuses per second of each car (default 1 unless --closed)")
	fs.BoolVar(&o.Closed, "closed", false, "each car sends its next status when the last one is answered")
	fs.DurationVar(&f.duration, "duration", 10*time.Second, "how long the cars report")
	fs.DurationVar(&o.Ramp, "ramp", 0, "time over which the cars start")
	fs.DurationVar(&o.ConnectTimeout, "connect-timeout", time.Minute, "longest wait for the last car to be connected")
	fs.IntVar(&o.Connections, "connections", 0, "broker connections that the cars share; 0: one per car, at most 100;\n-1: one of its own for each car, as in a real one")
	fs.Uint64Var(&o.Seed, "seed", 0, "seed of everything random; 0: a new one, which the report names")
	fs.Float64Var(&o.Faults.Share, "faulty", 1, "share of the cars that have the faults below, 0 to 1")
	fs.Float64Var(&o.Faults.Messages.Lose, "lose", 0, "probability that a message of the car is lost")
	fs.Float64Var(&o.Faults.Messages.Duplicate, "duplicate", 0, "probability that it is sent twice")
	fs.Float64Var(&o.Faults.Messages.Reorder, "reorder", 0, "probability that it is sent after the next one")
	fs.Float64Var(&o.Faults.Messages.Garbage, "garbage", 0, "probability that random bytes are sent before it")
	fs.Float64Var(&o.Faults.Silence, "silence", 0, "times per minute that a car falls silent")
	fs.DurationVar(&o.Faults.SilenceFor, "silence-for", 45*time.Second, "how long it stays silent")
	fs.Float64Var(&o.Faults.Restart, "restart", 0, "times per minute that a car's gateway dies and starts again")
	fs.DurationVar(&o.Faults.Storm, "storm", 0, "interval at which the gateways of all faulty cars restart at once")
	fs.Float64Var(&o.Faults.Flap, "flap", 0, "times per minute that a device of a car leaves and returns")
	fs.StringVar(&f.report, "report", "", "write the JSON report to this `FILE` instead of standard output")
	fs.BoolVar(&f.check, "check", false, "fail when a session was dropped or the protocol was violated")
	cmd.MarkFlagsMutuallyExclusive("rate", "closed")
	cmd.MarkFlagsMutuallyExclusive("payload", "status")
	return cmd
}

func runSimulation(cmd *cobra.Command, f *simulateFlags) error {
	o := &f.opts
	if o.Company == "" {
		return usageError{errors.New("--company is missing: the company of the cars, as in the server's configuration")}
	}
	if f.duration <= 0 {
		return usageError{fmt.Errorf("--duration %v: expected a positive time", f.duration)}
	}
	if !o.Closed && !cmd.Flags().Changed("rate") {
		o.Rate = 1
	}
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 32 // short enough to be typed again
	}
	var err error
	if o.Statuses, err = readStatuses(f.status); err != nil {
		return err
	}
	if o.Broker, err = f.broker.broker(); err != nil {
		return err
	}
	report, failure := simulate.Run(cmd.Context(), *o, f.duration, cmd.ErrOrStderr(), isTerminal(cmd.ErrOrStderr()))
	if report.Cars == 0 {
		return failure
	}
	if err := writeReport(cmd.OutOrStdout(), f.report, report); err != nil {
		return err
	}
	switch {
	case cmd.Context().Err() != nil:
		return nil
	case failure != nil:
		return failure
	case f.check && report.Lost()+report.Guilty()+uint64(report.Unserved) > 0:
		return fmt.Errorf("%d sessions were dropped, %d violations seen, %d cars got no answer", report.Lost(), report.Guilty(), report.Unserved)
	}
	return nil
}

// readStatuses reads what --status names: JSON, or a file with one status, or with
// one JSON text per line.
func readStatuses(value string) ([][]byte, error) {
	if value == "" || json.Valid([]byte(value)) {
		if value == "" {
			return nil, nil
		}
		return [][]byte{[]byte(value)}, nil
	}
	text, err := os.ReadFile(value)
	if err != nil {
		if strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[") || errors.Is(err, fs.ErrNotExist) {
			return nil, usageError{fmt.Errorf("--status %.60q is neither JSON nor a file", value)}
		}
		return nil, fmt.Errorf("--status: %w", err)
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return nil, usageError{fmt.Errorf("--status: the file %s is empty", value)}
	}
	lines := bytes.Split(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\n"))
	if slices.ContainsFunc(lines, func(line []byte) bool { return !json.Valid(line) }) {
		return [][]byte{text}, nil // one status, of whatever kind
	}
	return lines, nil
}

// writeReport writes one JSON document to a file, or to out when path is empty.
func writeReport(out io.Writer, path string, report any) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	text = append(console.CleanJSON(text), '\n') // it may be shown on a terminal
	if path != "" {
		return os.WriteFile(path, text, 0o644)
	}
	_, err = out.Write(text)
	return err
}

// isTerminal tells whether somebody looks at the output.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
