//go:build !linux

// Package bootclock has a clock that goes on while the machine sleeps, where the system has one. It imports nothing of
// the project.
package bootclock

import "time"

var start = time.Now()

// Now returns the time since the start of the process; whether it goes on while the machine sleeps is up to the system.
func Now() time.Duration { return time.Since(start) }
