package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"external-server/internal/app"
	"external-server/internal/app/sdnotify"
	"external-server/internal/config"
	"external-server/internal/logging"
)

const defaultConfig = "./config/config.json"

// serveFlags are the flags of the root command, also understood by check.
type serveFlags struct {
	config        string
	tls, noTLS    bool
	ca, cert, key string
	ready         func() // called when everything listens; nil: nothing is
}

func (f *serveFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.config, "config", "c", "", "configuration `PATH` (default "+defaultConfig+")")
	fs.BoolVar(&f.tls, "tls", false, "connect to the broker with TLS")
	fs.BoolVar(&f.noTLS, "no-tls", false, "connect without TLS, whatever the configuration says")
	fs.StringVar(&f.ca, "ca", "", "CA certificate `PATH` (PEM)")
	fs.StringVar(&f.cert, "cert", "", "client certificate `PATH` (PEM)")
	fs.StringVar(&f.key, "key", "", "private key `PATH` of the client certificate (PEM)")
}

// path returns the configuration file: -c, the argument or the default (CLI-6).
func (f *serveFlags) path(args []string) (string, error) {
	switch {
	case len(args) == 0 && f.config == "":
		return defaultConfig, nil
	case len(args) == 0:
		return f.config, nil
	case f.config != "" && f.config != args[0]:
		return "", usageError{fmt.Errorf("two configuration files given: %s and %s", f.config, args[0])}
	}
	return args[0], nil
}

// load reads the configuration, prints its warnings and applies the flags.
func (f *serveFlags) load(cmd *cobra.Command, args []string) (*config.Config, []config.Problem, error) {
	if f.tls && f.noTLS {
		return nil, nil, usageError{errors.New("--tls and --no-tls exclude each other")}
	}
	path, err := f.path(args)
	if err != nil {
		return nil, nil, err
	}
	cfg, warnings, err := config.Load(path, os.LookupEnv)
	if err != nil {
		for _, w := range warnings { // a misspelt key is often why another is missing
			fmt.Fprintf(cmd.ErrOrStderr(), "external-server: warning: %v\n", w)
		}
		return nil, nil, invalidConfiguration(cmd, path, err)
	}
	return cfg, warnings, f.apply(cfg)
}

// read is load for a server that runs: the error says everything.
func (f *serveFlags) read(args []string) (*config.Config, []config.Problem, error) {
	path, err := f.path(args)
	if err != nil {
		return nil, nil, err
	}
	cfg, warnings, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return nil, nil, err
	}
	return cfg, warnings, f.apply(cfg)
}

// apply lets the flags have the last word.
func (f *serveFlags) apply(cfg *config.Config) error {
	over := config.Flags{CA: f.ca, Cert: f.cert, Key: f.key}
	if f.tls || f.noTLS {
		over.TLS = &f.tls
	}
	return cfg.ApplyFlags(over)
}

func newLogs(cfg *config.Config) (*logging.Logs, error) {
	sink := func(s config.Sink) logging.Sink {
		return logging.Sink{Use: s.Use, Level: s.Level, Format: s.Format, Dir: s.Path, MaxBytes: s.MaxBytes, Keep: s.Keep}
	}
	return logging.New(logging.Options{
		Console:   sink(cfg.Logging.Console),
		File:      sink(cfg.Logging.File),
		Stderr:    os.Stderr,
		Component: "External Server",
	})
}

func serve(cmd *cobra.Command, flags *serveFlags, args []string) error {
	cfg, warnings, err := flags.load(cmd, args)
	if err != nil {
		return err
	}
	defer surviveClosedOutput()()
	ctx, release := finalOnSignal(cmd.Context())
	defer release()
	hangup := catchHangup()
	defer signal.Stop(hangup)
	logs, err := newLogs(cfg)
	if err != nil {
		return fmt.Errorf("logging cannot be set up: %w", err)
	}
	defer func() {
		// A log that cannot be written does not turn an orderly stop into a failure.
		if closing := logs.Close(); closing != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "external-server:", closing)
		}
	}()
	log := logs.Logger()
	if err := guardMemory(); err != nil {
		log.Warn(err.Error())
	}
	for _, w := range warnings {
		log.Warn("configuration: " + w.String())
	}
	log.Info("configuration loaded", "file", cfg.Source, "format", string(cfg.Format), "version", version)
	log.Info("configuration in force: " + cfg.Redacted().Line()) // CFG-23
	app.TuneMemory(cfg)
	server, err := app.New(ctx, app.Options{
		Config: cfg, Logger: log, Logs: logs, Version: version,
		Load: func() (*config.Config, []config.Problem, error) { return flags.read(args) },
	})
	switch {
	case err != nil && ctx.Err() != nil:
		// A stop that comes early is orderly too (CLI-24): modules whose start
		// it interrupts have not failed.
		log.Info("stopped before it served", "interrupted", err)
		return nil
	case err != nil:
		return err
	}
	manager := serviceManager{log}
	manager.tell(sdnotify.Ready)
	if flags.ready != nil {
		flags.ready()
	}
	defer reloadOnHangup(ctx, hangup, server, manager)()
	if err := server.Run(ctx); err != nil {
		// A library that does not return must not turn an orderly stop into a
		// failure (CLI-24): what was left behind is logged, the exit code is 0.
		if ctx.Err() == nil && !server.Stopping() {
			return err
		}
		log.Warn("stopped, but not everything ended in time", "error", err)
	}
	return nil
}

// surviveClosedOutput lets writes to a closed standard output or error fail
// instead of ending the process, until the returned function is called: when who
// reads the log goes away, the cars are still served. The signal is caught, not
// ignored, because child processes would inherit the latter.
func surviveClosedOutput() (restore func()) {
	pipe := make(chan os.Signal, 1) // never read: the failed write says it all
	signal.Notify(pipe, syscall.SIGPIPE)
	return func() { signal.Stop(pipe) }
}
