// Package cabi loads module shared libraries and speaks the C ABI with them
// (MOD-1 to MOD-19, docs/protocol.md): it fills module.Module and
// module.Instance with a real library.
//
// It is the only package of the project that uses cgo, and the only place that
// knows about C memory. It may import module and fleet only. The ABI itself is
// declared in modules/include/fleet_protocol_module.h; shim.c next to this file
// is the whole C side of the server.
//
// # What a library cannot do to the server
//
// Sizes, NULs, NULL pointers, error codes, text that is not UTF-8 and calls that
// do not come back are all expected. A crash inside a library is not survivable
// in the same process (MOD-19).
//
// # Threads
//
// A call into C occupies an operating system thread until it returns. Every
// context with a connected device has one wait_for_command under way practically all
// the time, hence (cars with devices x modules) threads; the Go runtime gives up at
// 10000 threads unless debug.SetMaxThreads raises it. While a poll is held, its thread
// stays in C: what answers "timeout" is called again there. The thread ends with the
// poll.
package cabi

import (
	"errors"
	"log/slog"

	"external-server/internal/module"
)

// Options of Open.
type Options struct {
	// Expect is the module number under which the library is configured. Open
	// fails when the library reports another one (MOD-10). 0 accepts any.
	Expect int32
	// Prime has wait_for_command called once, in the background, for every context that
	// was made. Known libraries drop what has come for the car before its first call
	// (MM-10): commands that come right after the first device would be lost.
	Prime bool
	// Logger receives what is worth knowing and no error; nil discards it.
	Logger *slog.Logger
}

var (
	// ErrClosed reports a call with a context, or a library, that is closed or
	// being closed; the library was not called.
	ErrClosed = module.ErrClosed
	// ErrEmptyRole reports a device without a role: the library was not called
	// (MOD-11).
	ErrEmptyRole = errors.New("the device has an empty role, the module was not called")
)
