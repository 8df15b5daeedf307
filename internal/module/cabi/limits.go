//go:build cgo

package cabi

import (
	"log/slog"
	"time"
)

func (o Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

const (
	// maxBuffer is the largest buffer accepted from a library, in bytes. What
	// is larger is garbage: no MQTT broker would carry it to a car.
	maxBuffer = 64 << 20
	// maxBatchBytes and maxBatch bound what one WaitCommands call takes out of
	// a library; what remains is fetched after the next wait.
	maxBatchBytes = maxBuffer
	maxBatch      = 10000
	// defaultPollTimeout is T_poll when none is given (MOD-16).
	defaultPollTimeout = time.Second
	// destroyGrace is what destroy gets at least, even when the context given
	// to Close has run out while other calls were waited for.
	destroyGrace = 100 * time.Millisecond
)

// symbols are the functions of the ABI, in the order of CABI_SYMBOLS in shim.h.
var symbols = [...]string{
	"get_module_number", "is_device_type_supported", "allocate", "deallocate",
	"init", "destroy", "forward_status", "forward_error_message",
	"device_disconnected", "device_connected", "wait_for_command",
	"pop_command", "command_ack",
}
