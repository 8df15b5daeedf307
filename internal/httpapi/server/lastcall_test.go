package server

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// TestLastCall: every connection that could be made before the listener is closed is accepted, also by a process
// that stands still for a while whenever it is about to accept one.
func TestLastCall(t *testing.T) {
	for round := range 14 {
		last, err := listen(t.Context(), "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving, clients sync.WaitGroup
		serving.Go(func() {
			for {
				if round%7 == 6 {
					<-time.After(3 * quietTime)
				}
				c, err := last.Accept()
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error(err)
					}
					return
				}
				_, _ = c.Write([]byte("x")) // the client reads it
				_ = c.Close()
			}
		})
		made := make(chan struct{}, 1000)
		for range 8 {
			clients.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond) // a client is not always there, or there is no quiet moment
				defer tick.Stop()
				for ; ; <-tick.C {
					c, err := net.Dial("tcp", last.Addr().String())
					if err != nil {
						return // refused: nothing was on the way
					}
					_ = c.SetDeadline(time.Now().Add(testwait.Patience))
					if _, err := c.Read(make([]byte, 1)); err != nil {
						t.Errorf("a connection that was made was not accepted: %v", err)
					}
					_ = c.Close()
					select {
					case made <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 20 {
			<-made
		}
		last.end()
		if err := last.Close(); err != nil {
			t.Error(err)
		}
		if err := last.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		serving.Wait()
		clients.Wait()
	}
	last, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Close(); err != nil {
		t.Errorf("closed unused: %v", err)
	}
}
