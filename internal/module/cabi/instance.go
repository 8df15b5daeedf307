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
	"sync/atomic"
	"time"
	"unsafe"

	"external-server/internal/fleet"
	"external-server/internal/logging"
	"external-server/internal/module"
)

var _ module.Instance = (*instance)(nil)

// instance is one context of a library.
//
// Two semaphores keep the order that the ABI demands: calling is held during
// every call but wait_for_command (MOD-5), waiting by the one WaitCommands that
// is under way, so that pop_command never meets a wait_for_command (MOD-6).
// Semaphores and not mutexes, because whoever waits for a call inside a library
// must be able to give up (CLI-24).
type instance struct {
	lib         *Library
	context     C.uintptr_t
	pollTimeout C.int // ms
	log         *slog.Logger
	limit       logging.Limiter

	calling chan struct{}
	waiting chan struct{}
	callOp  atomic.Int32  // the operation that holds calling
	claimed atomic.Bool   // by the first Close
	closing chan struct{} // closed by the first Close: no call starts any more

	popped *C.struct_cabi_popped // used by the holder of waiting and calling
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
	return &instance{
		lib:         lib,
		context:     context,
		pollTimeout: milliseconds(spec.PollTimeout),
		log:         lib.log.With("car", spec.Car.Car),
		calling:     make(chan struct{}, 1),
		waiting:     make(chan struct{}, 1),
		closing:     make(chan struct{}),
		popped:      (*C.struct_cabi_popped)(C.malloc(C.sizeof_struct_cabi_popped)),
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

// acquire takes one of the semaphores, unless ctx ends or the context is being
// closed. When it returns nil, Close waits for the release.
func (i *instance) acquire(ctx context.Context, semaphore chan struct{}, op int) error {
	if i.isClosing() {
		return fmt.Errorf("%s: %w", opNames[op], ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s not called: %w", opNames[op], err)
	}
	select {
	case semaphore <- struct{}{}:
	default:
		select {
		case semaphore <- struct{}{}:
		case <-i.closing:
			return fmt.Errorf("%s: %w", opNames[op], ErrClosed)
		case <-ctx.Done():
			return fmt.Errorf("%s not called, the module is busy: %w", opNames[op], ctx.Err())
		}
	}
	if i.isClosing() {
		<-semaphore
		return fmt.Errorf("%s: %w", opNames[op], ErrClosed)
	}
	return nil
}

func (i *instance) isClosing() bool {
	select {
	case <-i.closing:
		return true
	default:
		return false
	}
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
	if err := i.acquire(ctx, i.calling, op); err != nil {
		return err
	}
	i.callOp.Store(int32(op))
	code := C.cabi_call(i.lib.table, i.context, C.int(op), C.int(kind),
		(*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)),
		C.int(device.Module), C.uint(device.Type),
		(*C.uchar)(unsafe.StringData(device.Role)), C.size_t(len(device.Role)),
		(*C.uchar)(unsafe.StringData(device.Name)), C.size_t(len(device.Name)))
	<-i.calling
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
	if !i.claimed.CompareAndSwap(false, true) {
		return fmt.Errorf("destroy: %w", ErrClosed)
	}
	close(i.closing)
	defer i.lib.leave()

	// Taken for good. What was given up keeps its memory: the library may still
	// be writing to it.
	if !take(ctx, i.calling) {
		return i.stuck(int(i.callOp.Load()))
	}
	if !take(ctx, i.waiting) {
		return i.stuck(opWait)
	}
	done := make(chan C.int, 1)
	go func() { done <- C.cabi_destroy(i.lib.table, i.context) }()
	code, ok := receive(ctx, done)
	if !ok {
		return i.stuck(opDestroy)
	}
	C.free(unsafe.Pointer(i.popped))
	i.popped = nil
	return result(opDestroy, code)
}

func (i *instance) stuck(op int) error {
	return fmt.Errorf("%s: %w", opNames[op], module.ErrStuck)
}

// take prefers a free semaphore to a context that has ended.
func take(ctx context.Context, semaphore chan struct{}) bool {
	select {
	case semaphore <- struct{}{}:
		return true
	default:
	}
	select {
	case semaphore <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

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
