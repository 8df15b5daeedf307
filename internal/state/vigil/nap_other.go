//go:build !linux

package vigil

import "time"

// rest has no use on systems whose runtime was not looked at, and does no harm.
func rest() { time.Sleep(nap) }
