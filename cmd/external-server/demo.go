package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"external-server/internal/console"
	"external-server/internal/lab/demo"
	"external-server/internal/module/check"
)

// demoFlags are the flags of demo.
type demoFlags struct {
	module, status string
	seconds        float64
	open           bool
	opts           demo.Options
}

func newDemoCommand() *cobra.Command {
	f := &demoFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole system with simulated cars",
		Long: `demo runs a broker, the server with its HTTP API and simulated cars, and tells what
happens, until Ctrl-C or for --seconds (or the variable DEMO_SECONDS). Broker and server
are processes of their own. The server is restarted once while the cars drive, after
20 s or in the middle of a shorter demo, and what they have noticed is told.

The parts listen on this machine at the usual ports 1883, 8080 and 8090, or where
there is room, which is said; --port N takes N, N+1 and N+2. With --module a module
of your own takes part under its own number: one device reports --status to it.

With --replicas 3 three servers share the cars. One of them is killed and started again, another
one is stopped in order and started again, and what the cars have noticed is told.`,
		Example: `  external-server demo --cars 50 --open
  external-server demo --replicas 3 --cars 60
  external-server demo --module ./liblamp-post.so --status '{"dark": true}'
  external-server demo --module "python3 my_module.py" --port 9000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, f) },
	}
	fs := cmd.Flags()
	fs.IntVar(&f.opts.Cars, "cars", 3, "number of cars")
	fs.Float64Var(&f.seconds, "seconds", 0, "end after so many seconds; 0: with Ctrl-C")
	fs.IntVar(&f.opts.Replicas, "replicas", 1, "number of servers that share the cars; more than one need etcd (make etcd)")
	fs.IntVar(&f.opts.Port, "port", 0, "port of the broker; the HTTP API and the dashboard have the next two")
	fs.StringVar(&f.module, "module", "", "also run this module: `LIBRARY.so|COMMAND`")
	fs.StringVar(&f.status, "status", "", "what the device of --module reports: `JSON|FILE`, one status or one per line")
	fs.BoolVar(&f.open, "open", false, "open the dashboard in a browser")
	return cmd
}

func runDemo(cmd *cobra.Command, f *demoFlags) error {
	var err error
	if f.opts.Duration, err = demoSeconds("DEMO_SECONDS", os.Getenv("DEMO_SECONDS")); err != nil {
		return err
	}
	if cmd.Flags().Changed("seconds") {
		if f.opts.Duration, err = demoSeconds("--seconds", strconv.FormatFloat(f.seconds, 'g', -1, 64)); err != nil {
			return err
		}
	}
	if f.module == "" && f.status != "" {
		return usageError{errors.New("--status needs --module: it is what the module's device reports")}
	}
	if f.module != "" {
		if f.opts.Module, err = demoModule(f.module, f.status); err != nil {
			return err
		}
	}
	f.opts.Etcd = findEtcd()
	if f.opts.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("demo: its own program cannot be found: %w", err)
	}
	f.opts.Err, f.opts.FinalStop = cmd.ErrOrStderr(), console.SignalFinal
	// Without a reader of its story the demo ends, and clears up. The signal itself says
	// nothing: it comes for every socket that the other side has closed.
	defer surviveClosedOutput()()
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	f.opts.Out = &read{cmd.OutOrStdout(), stop}
	var browser sync.WaitGroup
	defer browser.Wait()
	if f.open {
		f.opts.Open = func(url string) {
			browser.Go(func() {
				if err := openBrowser(ctx, url); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "the browser cannot be opened: %v; the dashboard is %s\n", err, url)
				}
			})
		}
	}
	return demo.Run(ctx, f.opts)
}

// read is an output that tells when its reader has gone.
type read struct {
	io.Writer
	gone func()
}

func (r *read) Write(b []byte) (int, error) {
	n, err := r.Writer.Write(b)
	if err != nil {
		r.gone()
	}
	return n, err
}

// demoModule is the module of a library, or of a command with arguments.
func demoModule(text, status string) (*demo.Module, error) {
	m := &demo.Module{}
	if libraryName.MatchString(text) {
		m.Target, m.Library = check.Library(text), text
	} else if m.Command = strings.Fields(text); len(m.Command) > 0 {
		m.Target = check.Command(m.Command)
	} else {
		return nil, usageError{errors.New("--module is blank: expected a library or a command")}
	}
	var err error
	m.Statuses, err = readStatuses(status)
	return m, err
}

// openBrowser opens a page with the program that desktops have for it.
func openBrowser(ctx context.Context, url string) error {
	for _, opener := range []string{"xdg-open", "open", "wslview"} {
		if path, err := exec.LookPath(opener); err == nil {
			return exec.CommandContext(ctx, path, url).Run()
		}
	}
	return errors.New("neither xdg-open nor open is installed")
}

func demoSeconds(name, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n <= 0 || n > 1e6 {
		return 0, usageError{fmt.Errorf("%s is %q, expected a positive number of seconds", name, text)}
	}
	return time.Duration(n * float64(time.Second)), nil
}
