//go:build cgo

package cabi

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unsafe"

	"github.com/fleet-protocol/external-server/sdk/module/moduleproto"

	"external-server/internal/fleet"
	"external-server/internal/module"
)

// WaitCommands calls wait_for_command and, when it answers OK, pop_command until
// nothing remains (CMD-1). It returns nothing when T_poll passed without a
// command, *module.CallError when wait_for_command fails, and what was fetched
// together with an error when the library hands out something broken, or
// *module.UnusableError when it hands out what can be sent to no car. A
// library that overruns T_poll keeps it waiting: ctx only prevents further calls
// (MOD-15).
func (i *instance) WaitCommands(ctx context.Context) ([]fleet.Command, error) {
	return i.FetchCommands(ctx, module.Interval)
}

// Holds implements module.Holder.
func (i *instance) Holds() bool { return true }

// FetchCommands implements module.Holder: it is WaitCommands with the given patience.
// With module.Held a library that answers "timeout" is called again until ctx ends.
func (i *instance) FetchCommands(ctx context.Context, patience module.Patience) ([]fleet.Command, error) {
	var commands []fleet.Command
	err := i.StreamCommands(ctx, patience, func() {}, func(c fleet.Command) { commands = append(commands, c) })
	return commands, err
}

// StreamCommands is FetchCommands that tells of every command at once: fetching
// is called before the first pop_command, each after every one. A process that
// may die in the middle loses no command of which it has been told.
func (i *instance) StreamCommands(ctx context.Context, patience module.Patience, fetching func(), each func(fleet.Command)) error {
	if err := i.gate.Enter(ctx, module.Waiting, opNames[opWait]); err != nil {
		return err
	}
	defer i.gate.Leave(module.Waiting)
	i.polled.Store(true)
	var code C.int
	switch {
	case patience == module.Held && !i.hurried.Load():
		code = i.hold(ctx)
	case patience == module.Brief:
		code = i.wait(min(i.pollTimeout, milliseconds(module.BriefWait)))
	default:
		code = C.cabi_wait(i.lib.table, i.context, i.pollTimeout)
	}
	switch code {
	case module.CodeOK:
		fetching()
		return i.popAll(ctx, each)
	case module.CodeTimeoutOccurred:
		return nil
	default:
		return result(opWait, code)
	}
}

// hold waits in C until there is something or ctx ends; the caller is in the lane
// Waiting.
func (i *instance) hold(ctx context.Context) C.int {
	C.cabi_begin_poll(i.poll)
	if i.gate.IsShut() || i.hurried.Load() { // and Close or EndPolls may have ended it too early
		C.cabi_end_poll(i.poll)
	}
	result := i.lib.waits.begin(i, i.pollTimeout, 1)
	if result == nil {
		return C.cabi_wait(i.lib.table, i.context, i.pollTimeout)
	}
	select {
	case code := <-result:
		return code
	case <-ctx.Done():
		C.cabi_end_poll(i.poll)
		return <-result
	}
}

// wait makes one wait; the caller is in the lane Waiting.
func (i *instance) wait(timeout C.int) C.int {
	if result := i.lib.waits.begin(i, timeout, 0); result != nil {
		return <-result
	}
	return C.cabi_wait(i.lib.table, i.context, timeout)
}

// EndPolls implements module.Holder.
func (i *instance) EndPolls() {
	i.hurried.Store(true)
	i.pollMu.Lock()
	defer i.pollMu.Unlock()
	if i.poll != nil {
		C.cabi_end_poll(i.poll)
	}
}

// Waiting returns how long the wait_for_command of a poll that is held has taken so
// far; 0 if there is none.
func (i *instance) Waiting() time.Duration {
	i.pollMu.Lock()
	defer i.pollMu.Unlock()
	if i.poll == nil {
		return 0
	}
	return time.Duration(C.cabi_waiting_ms(i.poll)) * time.Millisecond
}

// popAll fetches the batch of one successful wait; the caller holds waiting.
func (i *instance) popAll(ctx context.Context, each func(fleet.Command)) error {
	commands, bytes := 0, 0
	var unusable *module.UnusableError
	for pops := 0; pops < maxBatch && bytes < maxBatchBytes; pops++ {
		command, remaining, err := i.pop(ctx)
		tooLarge, isTooLarge := errors.AsType[errTooLarge](err)
		if err != nil && !isTooLarge {
			return unusable.With(err)
		}
		if remaining < 0 {
			if pops == 0 {
				return result(opPop, remaining)
			}
			// The example module ends every batch like this (MOD-14, DEF-35).
			i.log.Debug("pop_command ended the batch with an error", "code", int(remaining), "commands", commands)
			return unusable.With(nil)
		}
		fault := string(tooLarge)
		if fault == "" {
			fault = module.CommandFault(&command)
		}
		switch {
		case fault != "":
			unusable = unusable.Add(fault)
		case command.Device == (fleet.Device{}) && len(command.Data) == 0: // the example module without device (MM-52)
			i.log.Debug("pop_command returned an empty command for an empty device, dropped")
		default:
			each(command)
			commands++
			bytes += len(command.Data)
		}
		if remaining == 0 {
			return unusable.With(nil)
		}
	}
	i.limit.Log(i.log, slog.LevelWarn, "the module offers more commands than one batch takes; the rest waits for the next poll",
		slog.Int("commands", commands), slog.Int("bytes", bytes))
	return unusable.With(nil)
}

// errTooLarge is the fault of a command that was not even copied.
type errTooLarge string

func (e errTooLarge) Error() string { return string(e) }

// pop fetches one command and returns what pop_command answered, errTooLarge with
// it when the command is too large for any car. The buffers go
// back to the library whatever it answered (MOD-2).
func (i *instance) pop(ctx context.Context) (fleet.Command, C.int, error) {
	if err := i.gate.Enter(ctx, module.Calling, opNames[opPop]); err != nil {
		return fleet.Command{}, 0, err
	}
	defer i.gate.Leave(module.Calling)

	remaining := C.cabi_pop(i.lib.table, i.context, i.popped)
	if remaining < 0 {
		C.cabi_take(i.lib.table, i.popped, nil)
		return fleet.Command{}, remaining, nil
	}
	// The sizes are read now, deallocate resets them. The pointers beside them
	// are never read in Go: they may be anything.
	device := &i.popped.device
	data, role, name := uint64(i.popped.command.size_in_bytes),
		uint64(device.device_role.size_in_bytes), uint64(device.device_name.size_in_bytes)
	if data > maxBuffer || role > maxBuffer || name > maxBuffer {
		C.cabi_take(i.lib.table, i.popped, nil)
		return fleet.Command{}, 0, fmt.Errorf("pop_command returned buffers of absurd size (command %d, role %d, "+
			"name %d bytes; at most %d are accepted); the module is broken", data, role, name, maxBuffer)
	}
	if i.popped.hollow != 0 {
		C.cabi_take(i.lib.table, i.popped, nil)
		return fleet.Command{}, 0, fmt.Errorf("pop_command returned a buffer without data (command %d, role %d, "+
			"name %d bytes, one of them NULL); the module is broken", data, role, name)
	}
	if fault := moduleproto.CommandTooLarge(data, role, name); fault != "" {
		C.cabi_take(i.lib.table, i.popped, nil)
		return fleet.Command{}, remaining, errTooLarge(fault)
	}
	command := fleet.Command{Device: fleet.Device{
		Module:   int32(device.module),
		Type:     uint32(device.device_type),
		Priority: uint32(device.priority),
	}}
	bytes := make([]byte, data+role+name+1) // never empty, so it has an address
	C.cabi_take(i.lib.table, i.popped, (*C.uchar)(unsafe.SliceData(bytes)))
	command.Data = bytes[:data:data]
	command.Device.Role = string(bytes[data : data+role])
	command.Device.Name = string(bytes[data+role : data+role+name])
	return command, remaining, nil
}
