// Package bootclock has a clock that goes on while the machine sleeps, as those of the gateways elsewhere do. It
// imports nothing of the project.
package bootclock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since the machine was started.
func Now() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Duration(time.Now().UnixNano()) // no Linux lacks it
	}
	return time.Duration(now.Nano())
}
