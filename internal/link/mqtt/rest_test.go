package mqtt_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/testwait"
)

// fastTime is a clock on which every look takes as long as a message of 20 000 a second, so that any
// traffic of many cars is worth pauses.
type fastTime struct{ at atomic.Int64 }

func (c *fastTime) now() time.Time { return time.Unix(1, c.at.Add(int64(50*time.Microsecond))) }

const restCars = 100

// resting is a link for many cars whose reader pauses, and its broker.
type resting struct {
	*stubborn
	l            *mqtt.Link
	cars         []*recorder
	pauses       atomic.Int64
	sent         atomic.Int64 // messages, for one car after the other
	acknowledged atomic.Int64
	reading      sync.WaitGroup
	accepted     atomic.Int64 // connections; the race detector does not see the order that the network makes
}

// newResting returns a link whose reader calls paused in each pause, with its number from 1 on.
func newResting(t *testing.T, paused func(r *resting, n int64)) *resting {
	if runtime.GOOS != "linux" {
		t.Skip("readers do not pause on this system")
	}
	if before := runtime.GOMAXPROCS(0); before < 2 {
		runtime.GOMAXPROCS(2)
		t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	}
	r := &resting{stubborn: startStubborn(t)}
	r.l = newLink(t, mqtt.Options{Address: r.listen.Addr().String()})
	var clock fastTime
	r.l.PaceBy(clock.now, func(d time.Duration) {
		clock.at.Add(int64(d))
		_ = r.accepted.Load() // conn is written
		paused(r, r.pauses.Add(1))
	})
	for n := range restCars {
		car, _ := attach(t, r.l, id("company", fmt.Sprint("car", n)))
		r.cars = append(r.cars, car)
	}
	return r
}

// serve accepts the link's connection and reads what it sends until that ends.
func (r *resting) serve(t *testing.T) {
	t.Helper()
	c, err := r.listen.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r.reading.Wait()
	r.conn = c
	r.accepted.Add(1)
	r.packet()
	r.write(0x20, 2, 0, 0)
	_, body := r.packet()
	r.write(append([]byte{0x90, 2 + restCars, body[0], body[1]}, bytes.Repeat([]byte{1}, restCars)...)...)
	r.reading.Go(func() {
		for first := byte(1); first != 0; {
			if first, _ = r.packet(); first>>4 == byte(wire.Puback) {
				r.acknowledged.Add(1)
			}
		}
	})
}

// message makes the next one.
func (r *resting) message() []byte {
	n := r.sent.Add(1)
	return wire.V311.AppendPublish(nil, fmt.Sprintf("company/car%d/module_gateway", n%restCars), fmt.Append(nil, n), 1, uint16(n), false, false)
}

func (r *resting) untilAcknowledged(t *testing.T) {
	t.Helper()
	testwait.Until(t, "all messages are acknowledged", func() bool { return r.acknowledged.Load() == r.sent.Load() })
}

// untilPause sends messages one by one until the reader has paused once more.
func (r *resting) untilPause(t *testing.T) {
	t.Helper()
	before := r.pauses.Load()
	for r.pauses.Load() == before {
		_, _ = r.conn.Write(r.message()) // a pause may have ended the connection
		testwait.Until(t, "the message is acknowledged, or there was a pause", func() bool {
			return r.acknowledged.Load() == r.sent.Load() || r.pauses.Load() > before
		})
	}
}

// What comes in pauses is handled in order, also a message of which only half has come. When
// nothing comes any more, any byte wakes the reader.
func TestRestingReader(t *testing.T) {
	rest := make(chan []byte, 1)
	r := newResting(t, func(r *resting, n int64) {
		switch {
		case n < 50:
			for range 6 {
				r.write(r.message()...)
			}
		case n == 50:
			m := r.message()
			r.write(m[:len(m)/2]...)
			rest <- m[len(m)/2:]
		}
	})
	runLink(t, r.l)
	r.serve(t)
	r.untilPause(t)
	r.write(<-rest...)
	r.untilAcknowledged(t)
	r.write(r.message()...)
	r.untilAcknowledged(t)
	for n, car := range r.cars {
		var want []string
		for i := n; i <= int(r.sent.Load()); i += restCars {
			if i > 0 {
				want = append(want, fmt.Sprint(i))
			}
		}
		if got := car.received(); !slices.Equal(got, want) {
			t.Errorf("car %d heard %q, expected %q", n, got, want)
		}
	}
}

// A connection that ends in a pause is noticed, and the next one works.
func TestConnectionEndsInPause(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"closed": func(c *net.TCPConn) { c.Close() },
		"reset": func(c *net.TCPConn) {
			_ = c.SetLinger(0)
			c.Close()
		},
		"in the middle of a packet": func(c *net.TCPConn) {
			_, _ = c.Write([]byte{0x32, 100, 0})
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResting(t, func(r *resting, n int64) {
				if n == 1 {
					end(r.conn.(*net.TCPConn))
				}
			})
			runLink(t, r.l)
			r.serve(t)
			r.untilPause(t)
			testwait.Until(t, "the cars learn of the loss", func() bool { return len(r.cars[1].lost()) == 1 })
			r.conn.Close() // of the test
			r.serve(t)
			r.sent.Store(0)
			r.acknowledged.Store(0)
			r.untilPause(t)
		})
	}
}

// A link that is stopped while its reader pauses ends.
func TestStopInPause(t *testing.T) {
	paused, stopping := make(chan struct{}), make(chan struct{})
	r := newResting(t, func(_ *resting, n int64) {
		if n == 1 {
			close(paused)
			<-stopping
		}
	})
	stop := runLink(t, r.l)
	r.serve(t)
	r.untilPause(t)
	<-paused
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	close(stopping)
	<-ended
}
