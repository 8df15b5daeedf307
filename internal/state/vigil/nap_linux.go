package vigil

import "golang.org/x/sys/unix"

// rest is an ordinary system call: the runtime's own sleep would give the processor back.
func rest() {
	t := unix.NsecToTimespec(int64(nap))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
