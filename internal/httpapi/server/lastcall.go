package server

import (
	"net"
	"sync"
	"time"
)

const (
	// quietTime is how long no connection may have come before a listener is closed.
	quietTime = 10 * time.Millisecond
	// lastCallTime bounds the wait for that.
	lastCallTime = 250 * time.Millisecond
)

// lastCall is a listener that can be closed without a loss. The system completes connections before
// they are accepted, and resets those that wait when a listener is closed: a client whose request
// was on the way cannot tell whether it was carried out.
type lastCall struct {
	*net.TCPListener
	mu     sync.Mutex
	begun  bool          // no more connections are wanted
	silent chan struct{} // closed when the queue of the system is empty, and the listener closed
	quiet  sync.Once     // closes silent
	once   sync.Once
	closed chan struct{} // by Close
}

func newLastCall(l *net.TCPListener) *lastCall {
	return &lastCall{TCPListener: l, silent: make(chan struct{}), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *lastCall) Accept() (net.Conn, error) {
	c, err := l.TCPListener.Accept()
	l.mu.Lock()
	begun := l.begun
	l.mu.Unlock()
	switch {
	case !begun:
		return c, err
	case err == nil:
		_ = l.TCPListener.SetDeadline(time.Now().Add(quietTime)) // fails when it is closed
		return c, nil
	}
	_ = l.TCPListener.Close() // at once: nothing waits now
	l.quiet.Do(func() { close(l.silent) })
	<-l.closed
	return nil, net.ErrClosed
}

// end has the connections accepted that wait, and closes the listener. Somebody has to accept.
func (l *lastCall) end() {
	l.mu.Lock()
	l.begun = true
	_ = l.TCPListener.SetDeadline(time.Now().Add(quietTime)) // fails when it is closed
	l.mu.Unlock()
	timer := time.NewTimer(lastCallTime)
	defer timer.Stop()
	select {
	case <-l.silent:
	case <-l.closed:
	case <-timer.C:
	}
}

// Close implements net.Listener.
func (l *lastCall) Close() error {
	err := net.ErrClosed
	l.once.Do(func() {
		close(l.closed)
		err = nil
		select {
		case <-l.silent:
		default:
			err = l.TCPListener.Close()
		}
	})
	return err
}
