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
