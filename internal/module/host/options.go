// Package host runs modules in processes of their own and keeps them running:
// shared libraries inside "external-server module-host", and executables in any
// language that speak the module protocol. To the rest of the server a Module of
// this package is a module.Module like any other; that its process may be
// another one than a moment ago is the business of this package alone.
//
// It may import module, fleet, logging and wire. The other end of the boundary is package
// guest.
//
// # What is promised
//
// An Instance outlives the process its context lives in. When the process ends,
// for whatever reason, calls wait (bounded by their context, while the worker's
// queue absorbs) until a new process has the context again and has been told of
// the connected devices. What had been handed over and was not answered is handed
// over again: modules see it at least once.
package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/module/cabi"
)

// Options of Open; zero values mean the defaults.
type Options struct {
	// Command is the executable and its arguments. No secret belongs here:
	// configuration values travel over the connection.
	Command []string
	// Name is what the operator knows the module by: the library's path or the
	// command.
	Name string
	// Expect is the module number under which the module is configured; 0
	// accepts any (MOD-10).
	Expect int32
	// Env is the environment of the process; nil means the server's own without
	// what is meant for the server alone, such as its passwords.
	Env []string
	// MemoryLimit is the resident memory in bytes beyond which the process is
	// replaced; 0: none.
	MemoryLimit int64
	// MaxRestarts is how often within RestartWindow the process is replaced
	// before the module is taken out of service; 0: it never is.
	MaxRestarts   int
	RestartWindow time.Duration // default 10 min
	// CallTimeout is how long one call may take before the process is replaced;
	// default 10 s. wait_for_command has no such limit.
	CallTimeout time.Duration
	// StartTimeout bounds the time from the start of the process to its answer
	// to Start; default 10 s.
	StartTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause before a process is replaced:
	// default 100 ms, doubled each time up to 4 s, with jitter.
	BackoffMin time.Duration
	BackoffMax time.Duration
	Logger     *slog.Logger

	library bool // the process is this program and runs a library
}

const (
	// maxDeliveries is how many processes may end during one and the same call
	// before that call is given up: it may be what ends them.
	maxDeliveries = 3
	// stopGrace is how long a process may take to end after its connection was
	// closed. With the time for the contexts before it (limits.stop_timeout_ms) a server
	// stops within 5 s.
	stopGrace = time.Second
	// defaultBackoffMax keeps the pauses of ten processes that end at once, after which a
	// module is out of service, below the 30 s after which gateways give up (GW-42).
	defaultBackoffMax = 4 * time.Second
	// calm is how long a process must have lived for the pause before its
	// replacement to be the shortest again.
	calm = time.Minute
	// closeGrace is what destroy gets at least, even when the context given to
	// Close has run out while other calls were waited for.
	closeGrace = 100 * time.Millisecond
	// pollPatience is how far a wait_for_command may exceed its timeout before
	// it is worth a warning; known libraries exceed it by up to 30 s (MOD-15).
	pollPatience = time.Minute
)

var (
	// ErrClosed reports a call with a context, or a module, that is closed.
	ErrClosed = module.ErrClosed
	// ErrEmptyRole reports a device without a role: the module was not called
	// (MOD-11).
	ErrEmptyRole = errors.New("the device has an empty role, the module was not called")
)

// hostCommand is the sub-command that runs a library.
const hostCommand = "module-host"

// hostProgram is beside a server that was built without cgo, or in ../lib/external-server:
// the same program built with it.
const hostProgram = "external-server-module-host"

// program returns what hosts libraries.
func program(available bool, self string) string {
	if available {
		return "/proc/self/exe" // not os.Executable: after an upgrade that is another program
	}
	dir := filepath.Dir(self)
	other := filepath.Join(dir, "..", "lib", "external-server", hostProgram)
	if _, err := os.Stat(other); err == nil {
		return other
	}
	return filepath.Join(dir, hostProgram)
}

// ForLibrary completes opts for the shared library at path: it runs in a second
// process of this very program, or of the one beside it that can load libraries.
func ForLibrary(path string, opts Options) Options {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	opts.Command = []string{program(cabi.Available, self), hostCommand, path}
	opts.Name = path
	opts.library = true
	return opts
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&o.RestartWindow, 10*time.Minute)
	set(&o.CallTimeout, 10*time.Second)
	set(&o.StartTimeout, 10*time.Second)
	set(&o.BackoffMin, 100*time.Millisecond)
	set(&o.BackoffMax, defaultBackoffMax)
	o.BackoffMax = max(o.BackoffMax, o.BackoffMin)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Env == nil {
		o.Env = moduleEnvironment(os.Environ())
	}
	return o
}

// where names the module in errors, with the number that it is expected to have.
func (o Options) where() string {
	if o.Expect == 0 {
		return fmt.Sprintf("module (%s)", o.Name)
	}
	return fmt.Sprintf("module %d (%s)", o.Expect, o.Name)
}

func (o Options) logger(number int32) *slog.Logger {
	return o.Logger.With(logging.ComponentKey, logging.ComponentModule, "module", number, "library", o.Name)
}

// moduleEnvironment leaves out the variables of the server: they hold passwords, and
// the service manager's socket, on which a module could speak for the server.
func moduleEnvironment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		return strings.HasPrefix(v, "EXTERNAL_SERVER_") || strings.HasPrefix(v, "NOTIFY_SOCKET=")
	})
}
