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
	"external-server/internal/module/wire"
)

// endGrace is how long the host of a library may take to end by itself once the
// server is gone.
const endGrace = 500 * time.Millisecond

// RunLibrary is the process that hosts one shared library: it serves the module
// protocol on descriptor 3 until the server ends the connection, and does not
// return then. Its standard error is read by the server.
func RunLibrary(ctx context.Context, path string) error {
	socket, err := guest.Socket()
	if err != nil {
		return err
	}
	if err := cabi.Guard(socket, endGrace); err != nil {
		return err
	}
	ignoreSignals()
	// Every wait_for_command holds a thread, and there is one per car.
	debug.SetMaxThreads(1 << 20)
	conn, err := wire.FromFile(socket)
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
		library, err := cabi.Open(path, cabi.Options{Expect: number, Logger: logger})
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
	cabi.EndGroup() // with whatever the library forked
	return err
}

// RunIfHost makes any program that opens isolated libraries its own host: called
// first in main, or in TestMain, it runs the library and does not return when
// this process was started by ForLibrary.
func RunIfHost() {
	if len(os.Args) != 3 || os.Args[1] != hostCommand || os.Getenv(wire.EnvFD) == "" {
		return
	}
	err := RunLibrary(context.Background(), os.Args[2])
	fmt.Fprintln(os.Stderr, "module-host:", err)
	os.Exit(1)
}

// ignoreSignals leaves it to the connection when to end. A service manager
// signals all processes of a service at once, and the server still needs its
// modules to stop in order. The parent-death signal is told from that by the
// parent: then the group ends at once.
func ignoreSignals() {
	parent := os.Getppid()
	// The program around may have its own idea of them, such as to exit with the second
	// one. The parent-death signal comes several times: the kernel hands a child on to
	// one thread of the server after the other, while these end.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signals := make(chan os.Signal, 1)
	// SIGPIPE is what writing to the output gives once the server is gone: it must not
	// end this process before it has ended what the library forked. It is caught and not
	// ignored, because what is ignored stays so in programs that the library starts.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() { // until the process ends
		for range signals {
			if os.Getppid() != parent {
				cabi.EndGroup()
			}
		}
	}()
}
