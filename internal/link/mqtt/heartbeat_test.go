package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/support/badnetwork"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

func answered(l *mqtt.Link) time.Time { return l.State().Connections[0].Answered }

// With a heartbeat the link knows when the broker has answered last, on a connection that has
// nothing to say as well; a network that swallows one direction or both ends that, although
// messages of cars may go on to arrive.
func TestHeartbeat(t *testing.T) {
	for _, tt := range []struct {
		name     string
		up, down bool
	}{{"silent", true, true}, {"mute", true, false}, {"deaf", false, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			broker := brokertest.Start(t, brokertest.Options{})
			relay := badnetwork.New(t, broker.Address())
			car := id("company", "car")
			l := startLink(t, mqtt.Options{Address: relay.Address(), KeepAlive: 4 * time.Second, Heartbeat: 50 * time.Millisecond, ConnectTimeout: time.Second})
			r, _ := attach(t, l, car)
			waitUp(t, r)
			for range 3 {
				before := answered(l)
				testwait.Until(t, "the broker answers again", func() bool { return answered(l).After(before) })
			}
			g := gateway(t, broker.Address(), car)
			relay.Set(badnetwork.Faults{Mute: tt.up, Deaf: tt.down})
			n := 0
			testwait.Until(t, "the connection is given up", func() bool {
				if n++; n%50 == 0 && n <= 1000 { // as many as the broker sends without an acknowledgement
					say(t, g, car, fmt.Sprint(n))
				}
				return len(r.lost()) > 0
			})
			before := answered(l)
			if !tt.down && len(r.received()) == 0 {
				t.Error("no message has come: this network swallows both directions")
			}
			if err := r.lost()[0]; !strings.Contains(err.Error(), "no answer to a ping") {
				t.Errorf("reason: %v", err)
			}
			relay.Set(badnetwork.Faults{})
			testwait.Until(t, "the link is up again", func() bool { return r.upCount() >= 2 && answered(l).After(before) })
		})
	}
}

// A link that is left because its broker does not answer ends at once, also when the writer waits
// for a broker that does not read. The broker keeps the session.
func TestUnheardLinkEndsAtOnce(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("writer waits ", full), func(t *testing.T) {
			broker := brokertest.Start(t, brokertest.Options{})
			relay := badnetwork.New(t, broker.Address())
			car := id("company", "car")
			// What would be waited for in order is more than this test waits.
			l := newLink(t, mqtt.Options{Address: relay.Address(), Sessions: sessions(1, "one"), StopTimeout: 10 * testwait.Patience})
			r, p := attach(t, l, car)
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			waitUp(t, r)
			relay.Set(badnetwork.Faults{Silent: true})
			if full {
				sent := func() uint64 { return l.State().Connections[0].BytesOut }
				before := sent()
				for p.Publish(make([]byte, 1<<20), link.Ack{}) {
				}
				testwait.Until(t, "the writer writes", func() bool { return sent() > before })
			}
			cancel(link.ErrUnheard)
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(testwait.Patience):
				t.Fatal("the link waits for the broker")
			}
			if lost := r.lost(); len(lost) != 1 || errors.Is(lost[0], link.ErrFenced) {
				t.Errorf("the car was told %v", lost)
			}
			if l.Settled() {
				t.Error("the link says that the broker has everything")
			}
			relay.Set(badnetwork.Faults{})
			again := startLink(t, mqtt.Options{Address: broker.Address(), Sessions: sessions(1, "two")})
			next, _ := attach(t, again, car)
			waitUp(t, next)
			if !again.State().Connections[0].Continued {
				t.Error("the broker has not kept the session")
			}
		})
	}
}

// One connection that the network has lost without a word, among others that are answered, is made anew long before
// its keepalive ends, also when its writer waits for the broker. The session goes on.
func TestDeadConnectionAmongOthers(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("writer waits ", full), func(t *testing.T) {
			t.Parallel()
			broker := brokertest.Start(t, brokertest.Options{})
			relay := badnetwork.New(t, broker.Address())
			const heartbeat = 200 * time.Millisecond
			other := startLink(t, mqtt.Options{Address: broker.Address(), Heartbeat: heartbeat})
			l := startLink(t, mqtt.Options{Address: relay.Address(), Sessions: sessions(1, "one"), Heartbeat: heartbeat, KeepAlive: 30 * time.Second})
			r, p := attach(t, l, carOf(0, 1))
			waitUp(t, r)
			for range 3 {
				before := answered(l)
				testwait.Until(t, "the broker answers again", func() bool { l.Witness(answered(other)); return answered(l).After(before) })
			}
			relay.Set(badnetwork.Faults{Silent: true})
			if full {
				for p.Publish(make([]byte, 1<<20), link.Ack{}) {
				}
			}
			testwait.Until(t, "the connection is given up", func() bool { l.Witness(answered(other)); return len(r.lost()) > 0 })
			if err := r.lost()[0]; !strings.Contains(err.Error(), "has over others") {
				t.Errorf("reason: %v", err)
			}
			relay.Cut()
			relay.Set(badnetwork.Faults{})
			testwait.Until(t, "the link is up again", func() bool { return r.upCount() >= 2 })
			if !l.State().Connections[0].Continued {
				t.Error("the session has not gone on")
			}
		})
	}
}

// A link whose end is orderly does not wait longer for a broker that does not read than for one that does not answer.
func TestOrderlyEndIsBounded(t *testing.T) {
	broker := brokertest.Start(t, brokertest.Options{})
	relay := badnetwork.New(t, broker.Address())
	l := newLink(t, mqtt.Options{Address: relay.Address(), Sessions: sessions(1, "one"), StopTimeout: 50 * time.Millisecond})
	r, p := attach(t, l, carOf(0, 1))
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	waitUp(t, r)
	relay.Set(badnetwork.Faults{Silent: true})
	sent := func() uint64 { return l.State().Connections[0].BytesOut }
	before := sent()
	for p.Publish(make([]byte, 1<<20), link.Ack{}) {
	}
	testwait.Until(t, "the writer writes", func() bool { return sent() > before })
	begun := time.Now()
	cancel(link.ErrSuspend)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 4*time.Second { // what waits for the deadline of a write needs 5 to 10 s
		t.Errorf("the end took %v", took)
	}
	if l.Settled() {
		t.Error("the link says that the broker has everything")
	}
}
