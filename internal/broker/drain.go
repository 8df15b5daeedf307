package broker

import (
	"reflect"
	"sync/atomic"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
)

const (
	// drainTimeout bounds how long Close lets clients take what waits for them, and
	// drainStalled how long it goes on when nobody takes anything.
	drainTimeout = 3 * time.Second
	drainStalled = 500 * time.Millisecond
	drainLook    = 2 * time.Millisecond
)

// drain waits until the clients have what was published for them: the library
// forgets it when it ends a client, although it has acknowledged it to the
// publisher. A server that stops tells its cars last of all (CLI-24).
func (b *Broker) drain() {
	timeout := time.NewTimer(drainTimeout)
	defer timeout.Stop()
	look := time.NewTicker(drainLook)
	defer look.Stop()
	fewest, since := b.undelivered(), time.Now()
	for fewest > 0 {
		select {
		case <-timeout.C:
			return
		case now := <-look.C:
			n := b.undelivered()
			if n < fewest {
				fewest, since = n, now
			} else if now.Sub(since) > drainStalled {
				return
			}
		}
	}
}

// undelivered counts the messages that wait in the library for being written to a
// client, or with QoS 1 for its acknowledgement.
func (b *Broker) undelivered() int {
	n := 0
	for _, cl := range b.server.Clients.GetAll() {
		if !cl.Closed() {
			n += max(queued(cl), cl.State.Inflight.Len())
		}
	}
	return n
}

// queued is the number of messages that the library has not yet written to the
// client. It counts them, but shows the figure to nobody.
func queued(cl *mqtt.Client) int {
	field := reflect.ValueOf(&cl.State).Elem().FieldByName("outboundQty")
	if !field.IsValid() || field.Kind() != reflect.Int32 {
		return 0 // TestCloseDelivers fails then
	}
	return int(atomic.LoadInt32((*int32)(field.Addr().UnsafePointer())))
}
