package mqtt

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootClock counts also while the machine sleeps: gateways elsewhere do not.
func bootClock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Duration(time.Now().UnixNano()) // no Linux lacks it
	}
	return time.Duration(now.Nano())
}
