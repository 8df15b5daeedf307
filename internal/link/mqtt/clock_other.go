//go:build !linux

package mqtt

import "time"

var clockStart = time.Now()

// bootClock counts from the start of the process; whether also while the machine sleeps
// is up to the system.
func bootClock() time.Duration { return time.Since(clockStart) }
