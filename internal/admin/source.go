package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"external-server/internal/car"
	"external-server/internal/link"
	"external-server/internal/logging"
	"external-server/internal/module"
	"external-server/internal/state/process"
)

// Source is the server as the endpoint sees it. Its methods may be called
// concurrently.
type Source interface {
	Company() string
	// Cars returns all cars; Car one of them.
	Cars() []car.Snapshot
	Car(name string) (car.Snapshot, bool)
	// Labels are those that the configuration gives to a car; they must not be changed.
	Labels(car string) map[string]string
	Link() link.State
	Modules() []ModuleInfo
	// Components says what is ready and why not.
	Components() []Component
	// API reaches the server's own HTTP API, from this process; nil: it has none.
	API() http.RoundTripper
	// CheckCommand tells whether the module of a car takes the data of a command, as far as
	// that is known, and what the module is going to hand to the car.
	CheckCommand(car string, module int32, data []byte) (delivered []byte, err error)
	// Disconnect and Reannounce act on a car's gateway. They return ErrNoCar or
	// ErrNotNow.
	Disconnect(car string) error
	Reannounce(car string) error
	// Reload reads the configuration file and puts it in force, or changes nothing.
	// The text says what has changed.
	Reload(ctx context.Context) (changes string, err error)
	// Stop begins to stop the server, with final in such a way that no later process
	// goes on with its sessions. It returns at once: the text says what becomes of the
	// sessions, and the process is the one that ends. ErrStopping: it stops already.
	Stop(final bool) (text string, self process.ID, err error)
	// LogLines returns the newest lines of the log of at least that level for which want
	// holds, the newest first.
	LogLines(least slog.Level, most int, want func(*logging.Line) bool) []logging.Line
	// LogLevels returns the levels of all components.
	LogLevels() map[string]logging.ComponentLevel
	// SetLogLevel sets the level of one component until ResetLogLevel.
	SetLogLevel(component string, level slog.Level) error
	ResetLogLevel(component string) error
}

// Errors of a Source.
var (
	ErrNoCar    = errors.New("no such car")
	ErrStopping = errors.New("the server stops already")
	ErrNotNow   = errors.New("the car is in its connect sequence, which that would only break; try again when it is running")
)

// ModuleInfo describes one module that is loaded.
type ModuleInfo struct {
	Number int32
	Kind   string // library, isolated library, command, builtin
	Name   string // path, command line or name
	// Process of a module that runs in one of its own, else nil.
	Process *module.ProcessState
}

// Component is a part of the server for /readyz.
type Component struct {
	Name   string `json:"name"`
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why not; or, of what is ready, what it is waiting for
}
