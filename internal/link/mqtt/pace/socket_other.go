//go:build !linux

package pace

import (
	"net"
	"time"
)

// socket is not there on this system: readers do not pause.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) begin() {}

func (*socket) end() {}

func (*socket) read([]byte) (n int, err error, done bool) { return 0, nil, false }

func threadSleep(d time.Duration) { time.Sleep(d) }
