//go:build cgo

package cabi

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"external-server/internal/fleet"
	"external-server/internal/logging"
	"external-server/internal/module"
)

var _ module.Holder = (*instance)(nil)

// instance is one context of a library.
//
// WaitCommands keeps the lane Waiting until it has fetched everything, so that
// pop_command never meets a wait_for_command (MOD-6).
type instance struct {
	lib         *Library
	context     C.uintptr_t
	pollTimeout C.int // ms
	log         *slog.Logger
	limit       logging.Limiter

	gate *module.Gate

	popped  *C.struct_cabi_popped // used by who is in both lanes, Waiting and Calling
	poll    *C.struct_cabi_poll   // of who is in the lane Waiting
	pollMu  sync.Mutex            // held while poll is read by anyone else, and freed
	polled  atomic.Bool           // a poll has begun
	hurried atomic.Bool           // EndPolls was called
}

// Indices into opNames. The first ones are those of shim.h.
const (
	opDestroy = C.CABI_COMMAND_ACK + 1 + iota
	opWait
	opPop
)

var opNames = [...]string{
	C.CABI_DEVICE_CONNECTED:      "device_connected",
	C.CABI_DEVICE_DISCONNECTED:   "device_disconnected",
	C.CABI_FORWARD_STATUS:        "forward_status",
	C.CABI_FORWARD_ERROR_MESSAGE: "forward_error_message",
	C.CABI_COMMAND_ACK:           "command_ack",
	opDestroy:                    "destroy",
	opWait:                       "wait_for_command",
	opPop:                        "pop_command",
}

func newInstance(lib *Library, context C.uintptr_t, spec module.InstanceSpec) *instance {
	poll := (*C.struct_cabi_poll)(C.calloc(1, C.sizeof_struct_cabi_poll))
	poll.phase = C.uint(lib.made.Add(1) * 2654435769) // 2^32 divided by the golden ratio: any number of them are spread evenly
	return &instance{
		lib:         lib,
		context:     context,
		pollTimeout: milliseconds(spec.PollTimeout),
		log:         lib.log.With("car", spec.Car.Car),
		gate:        module.NewGate(),
		popped:      (*C.struct_cabi_popped)(C.malloc(C.sizeof_struct_cabi_popped)),
		poll:        poll,
	}
}

// milliseconds converts T_poll; a part of a millisecond counts as a whole one,
// because 0 would make the poller spin.
func milliseconds(d time.Duration) C.int {
	if d <= 0 {
		d = defaultPollTimeout
	}
	ms := (d + time.Millisecond - 1) / time.Millisecond
	if d > math.MaxInt64-time.Millisecond || ms > math.MaxInt32 {
		ms = math.MaxInt32
	}
	return C.int(ms)
}

// DeviceConnected calls device_connected. This and the four methods below
// return *module.CallError when the library answers with anything but OK,
// ErrClosed or the error of ctx when it was not called. ctx bounds the time
// before the call; the call itself cannot be interrupted.
func (i *instance) DeviceConnected(ctx context.Context, device fleet.Device) error {
	return i.call(ctx, C.CABI_DEVICE_CONNECTED, device, nil, 0)
}

// DeviceDisconnected calls device_disconnected.
func (i *instance) DeviceDisconnected(ctx context.Context, kind fleet.DisconnectType, device fleet.Device) error {
	return i.call(ctx, C.CABI_DEVICE_DISCONNECTED, device, nil, kind)
}

// ForwardStatus calls forward_status.
func (i *instance) ForwardStatus(ctx context.Context, device fleet.Device, status []byte) error {
	return i.call(ctx, C.CABI_FORWARD_STATUS, device, status, 0)
}

// ForwardError calls forward_error_message.
func (i *instance) ForwardError(ctx context.Context, device fleet.Device, message []byte) error {
	return i.call(ctx, C.CABI_FORWARD_ERROR_MESSAGE, device, message, 0)
}

// CommandAck calls command_ack, also for an empty role (MOD-17).
func (i *instance) CommandAck(ctx context.Context, command fleet.Command) error {
	if command.Device.Role == "" {
		i.log.Warn("acknowledging a command for a device with an empty role", "device", command.Device.String())
	}
	return i.call(ctx, C.CABI_COMMAND_ACK, command.Device, command.Data, 0)
}

// call makes one call from the car to the module. Strings and data are handed
// over in place: the library copies what it keeps (MOD-1).
func (i *instance) call(ctx context.Context, op int, device fleet.Device, data []byte, kind fleet.DisconnectType) error {
	if device.Role == "" && op != C.CABI_COMMAND_ACK {
		return fmt.Errorf("%s, device %s: %w", opNames[op], device, ErrEmptyRole)
	}
	if err := i.gate.Enter(ctx, module.Calling, opNames[op]); err != nil {
		return err
	}
	code := C.cabi_call(i.lib.table, i.context, C.int(op), C.int(kind),
		(*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)),
		C.int(device.Module), C.uint(device.Type),
		(*C.uchar)(unsafe.StringData(device.Role)), C.size_t(len(device.Role)),
		(*C.uchar)(unsafe.StringData(device.Name)), C.size_t(len(device.Name)))
	i.gate.Leave(module.Calling)
	return result(op, code)
}

func result(op int, code C.int) error {
	if code == module.CodeOK {
		return nil
	}
	return &module.CallError{Op: opNames[op], Code: int(code)}
}

// Close destroys the context once all calls have come back, and returns
// *module.CallError when destroy fails. When ctx ends first, Close gives the
// context up: it returns module.ErrStuck naming the function, and the library is
// never called with this context again (CLI-24). A second Close returns
// ErrClosed. Close takes at most destroyGrace longer than ctx.
func (i *instance) Close(ctx context.Context) error {
	if !i.gate.Shut() {
		return fmt.Errorf("destroy: %w", ErrClosed)
	}
	defer i.lib.leave()

	C.cabi_end_poll(i.poll)
	// What was given up keeps its memory: the library may still be writing to it.
	if op := i.gate.Drain(ctx.Done(), module.Calling, module.Waiting); op != "" {
		return stuck(op)
	}
	done := make(chan C.int, 1)
	go func() { done <- C.cabi_destroy(i.lib.table, i.context) }()
	code, ok := receive(ctx, done)
	if !ok {
		return stuck(opNames[opDestroy])
	}
	i.pollMu.Lock()
	defer i.pollMu.Unlock()
	C.free(unsafe.Pointer(i.popped))
	C.free(unsafe.Pointer(i.poll))
	i.popped, i.poll = nil, nil
	return result(opDestroy, code)
}

func stuck(op string) error { return fmt.Errorf("%s: %w", op, module.ErrStuck) }

// receive waits until ctx ends, and destroyGrace longer.
func receive(ctx context.Context, done <-chan C.int) (C.int, bool) {
	select {
	case code := <-done:
		return code, true
	case <-ctx.Done():
	}
	grace := time.NewTimer(destroyGrace)
	defer grace.Stop()
	select {
	case code := <-done:
		return code, true
	case <-grace.C:
		return 0, false
	}
}
