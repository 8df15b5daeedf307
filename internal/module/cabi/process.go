//go:build cgo && linux

package cabi

/*
#include "process.h"
*/
import "C"

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// Guard makes sure that this process, and what a library forks from it, ends
// when the other side of the socket fd is closed, whatever the library is doing
// then. The process has the time of grace to end by itself. For a process that
// hosts one library; never for the server.
func Guard(fd *os.File, grace time.Duration) error {
	C.cabi_line_buffering()
	// A descriptor of its own: the guard must not depend on who closes the other.
	own, err := syscall.Dup(int(fd.Fd()))
	if err != nil {
		return fmt.Errorf("watching the server: %w", err)
	}
	syscall.CloseOnExec(own)
	if number := C.cabi_guard(C.int(own), C.int(grace.Milliseconds())); number != 0 {
		return fmt.Errorf("watching the server: %w", syscall.Errno(number))
	}
	return nil
}

// ReportCrashes makes a crash of the library say what it was on standard error
// before the process dies of it. Only libraries loaded by then can be named as
// the place; it may be called again.
func ReportCrashes() { C.cabi_report_crashes() }

// EndGroup ends this process and its process group at once.
func EndGroup() { C.cabi_end_group() }

// HeapBytes returns how many bytes the C allocator has given out in this
// process.
func (l *Library) HeapBytes() uint64 { return uint64(C.cabi_heap_bytes()) }

// GuardEnv set to 1 in the environment of a host makes it strict, for checking a
// module: the bytes given to the library end at a page that must not be touched
// and are gone after the call; what the library hands out is looked at. What is
// found is written to standard error, a line each that starts with
// ViolationPrefix.
const GuardEnv = "FLEET_MODULE_GUARD"

// ViolationPrefix starts a line about a violation; the rule id and a colon
// follow.
const ViolationPrefix = "module-check: "
