package broker

import (
	"net"
	"testing"
	"time"

	"external-server/internal/support/testwait"
)

// A client that has just come when the broker closes does not hold it up: its
// connection is closed before anybody writes to it.
func TestClosedBeforeStart(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := newConn(near, &Broker{opts: Options{ConnectTimeout: time.Hour}})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.start()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.closeAndWait()
	}()
	select {
	case <-ended:
	case <-time.After(testwait.Patience):
		t.Fatal("the connection does not end")
	}
}
