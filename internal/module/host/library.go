package host

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"external-server/internal/module"
	"external-server/internal/module/cabi"
	"external-server/internal/module/guest"
	"github.com/fleet-protocol/external-server/sdk/boundary"
)

// endGrace is how long a module process may take to end by itself once the server is
// gone.
const endGrace = 500 * time.Millisecond

// RunLibrary is the process that hosts one shared library: it serves the module
// protocol on descriptor 3 until the server ends the connection, and does not
// return then. Its standard error is read by the server.
func RunLibrary(ctx context.Context, path string) error {
	socket, err := boundary.Socket()
	if err != nil {
		return err
	}
	cabi.BufferLines()
	ignoreSignals()
	// Every wait_for_command holds a thread, and there is one per car with a device.
	debug.SetMaxThreads(1 << 20)
	conn, err := boundary.FromFile(socket)
	if err != nil {
		return err
	}
	load := func(number int32) (module.Module, error) {
		// Lines without time: the server's log has its own.
		logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{
			ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey && len(groups) == 0 {
					return slog.Attr{}
				}
				return a
			}}))
		cabi.ReportCrashes() // also of what runs while it is loaded
		library, err := cabi.Open(path, cabi.Options{Expect: number, Logger: logger, Prime: true})
		if err != nil {
			return nil, err
		}
		cabi.ReportCrashes() // now it knows where the library's code lies
		return library, nil
	}
	err = guest.Serve(context.WithoutCancel(ctx), conn, "module-host "+filepath.Base(path), load)
	if err != nil {
		fmt.Fprintln(os.Stderr, "module-host:", err)
	}
	os.Exit(0) // now, whatever the library's threads do
	return nil
}

// RunIfHost makes any program that opens modules in processes of their own the
// program of these processes, too: called first in main, or in TestMain, it runs the
// library or the reaper and does not return when this process was started for that.
func RunIfHost() {
	if len(os.Args) != 3 || os.Getenv(boundary.EnvFD) == "" {
		return
	}
	var err error
	switch os.Args[1] {
	case hostCommand:
		err = RunLibrary(context.Background(), os.Args[2])
	case reaperCommand:
		err = RunReaper()
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ignoreSignals leaves it to the connection when to end. A service manager
// signals all processes of a service at once, and the server still needs its
// modules to stop in order.
func ignoreSignals() {
	// The program around may have its own idea of them, such as to exit with the second
	// one.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	// SIGPIPE is what writing to the output gives once the server is gone. They are
	// caught and not ignored, because what is ignored stays so in programs that the
	// library starts. Nothing reads the channel.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
}
