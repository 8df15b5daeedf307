//go:build cgo && linux

package cabi

/*
#include "process.h"
*/
import "C"

// BufferLines makes lines of the library's stdio appear when they are complete. For
// a process that hosts one library; never for the server.
func BufferLines() { C.cabi_line_buffering() }

// ReportCrashes makes a crash of the library say what it was on standard error
// before the process dies of it. Only libraries loaded by then can be named as
// the place; it may be called again.
func ReportCrashes() { C.cabi_report_crashes() }

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
