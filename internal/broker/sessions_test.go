package broker_test

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// visitor is a client of MQTT 5 that acknowledges only what it is told to.
type visitor struct {
	t       *testing.T
	conn    net.Conn
	packets *wire.Reader
	present bool
	ids     []uint16 // of the last messages
}

func visit(t *testing.T, b *broker.Broker, o wire.ConnectOptions) *visitor {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	v := &visitor{t: t, conn: nc, packets: wire.NewReader(nc, 1<<20)}
	v.packets.Speak(wire.V5)
	o.Version, o.KeepAlive = wire.V5, 60
	if o.ClientID == "" {
		o.ClientID = "visitor"
	}
	v.write(wire.AppendConnect(nil, o))
	p := v.next(wire.Connack)
	if p.Code != 0 || p.Server == nil || p.Server.HasSessionExpiry && p.Server.SessionExpiry == 0 && o.SessionExpiry > 0 {
		t.Fatalf("CONNACK %+v, %+v", p, p.Server)
	}
	v.present = p.Present
	return v
}

func (v *visitor) write(b []byte) {
	v.t.Helper()
	if _, err := v.conn.Write(b); err != nil {
		v.t.Fatal(err)
	}
}

func (v *visitor) next(want wire.Type) *wire.Packet {
	v.t.Helper()
	var p wire.Packet
	if err := v.conn.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		v.t.Fatal(err)
	}
	if err := v.packets.Next(&p); err != nil {
		v.t.Fatal(err)
	}
	if p.Type != want {
		v.t.Fatalf("received %+v instead of %v", p, want)
	}
	return &p
}

func (v *visitor) subscribe(filters ...string) {
	v.t.Helper()
	v.write(wire.V5.AppendSubscribe(nil, 1, 1, filters...))
	v.next(wire.Suback)
}

// hear returns the next messages in words.
func (v *visitor) hear(n int) (out []string) {
	v.t.Helper()
	v.ids = nil
	for range n {
		p := v.next(wire.Publish)
		s := string(p.Payload)
		if p.Duplicate {
			s += " again"
		}
		if p.Retain {
			s += " retained"
		}
		out = append(out, s)
		v.ids = append(v.ids, p.ID)
	}
	return out
}

func (v *visitor) acknowledge(n int) {
	v.t.Helper()
	for _, id := range v.ids[:n] {
		v.write(wire.AppendPuback(nil, id))
	}
}

// quiet makes sure that nothing else was sent.
func (v *visitor) quiet() {
	v.t.Helper()
	v.write(wire.AppendPingreq(nil))
	v.next(wire.Pingresp)
}

// gone closes the connection and waits until the broker has noticed: the others are left.
func (v *visitor) gone(b *broker.Broker, left int) {
	v.t.Helper()
	v.conn.Close()
	testwait.Until(v.t, "the client is gone", func() bool { return b.Stats().Clients == left })
}

func publishAll(t *testing.T, p *brokertest.Peer, topic string, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := p.Publish(topic, fmt.Append(nil, n), false); err != nil {
			t.Fatal(err)
		}
	}
}

func wantHeard(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

var expiring = wire.ConnectOptions{Continue: true, SessionExpiry: 100}

// A session outlives its connection: what was not acknowledged comes again, in order and
// marked, then what came meanwhile, then what is new.
func TestKeptSession(t *testing.T) {
	b, _ := start(t, broker.Options{KeepSessions: true})
	sender := dial(t, b, brokertest.PeerOptions{})
	v := visit(t, b, expiring)
	if v.present {
		t.Error("a first session was there before")
	}
	v.subscribe("a/+/c", "exact")
	publishAll(t, sender, "a/b/c", 1, 3)
	publishAll(t, sender, "exact", 4, 5)
	publishAll(t, sender, "other", 6, 6)
	wantHeard(t, v.hear(5), "1", "2", "3", "4", "5")
	v.write(wire.AppendPuback(nil, v.ids[1]))
	v.quiet()
	v.gone(b, 1)
	publishAll(t, sender, "exact", 7, 7)
	if err := sender.Send("exact", []byte("QoS 0 is not kept")); err != nil {
		t.Fatal(err)
	}
	publishAll(t, sender, "a/b/c", 8, 8)

	v = visit(t, b, expiring)
	if !v.present {
		t.Fatal("the session was not there")
	}
	publishAll(t, sender, "a/x/c", 9, 9)
	wantHeard(t, v.hear(7), "1 again", "3 again", "4 again", "5 again", "7", "8", "9")
	v.acknowledge(7)
	v.quiet()
	v.write(wire.V5.AppendUnsubscribe(nil, 2, "exact"))
	v.next(wire.Unsuback)
	publishAll(t, sender, "exact", 10, 10)
	publishAll(t, sender, "a/b/c", 11, 11)
	wantHeard(t, v.hear(1), "11")
	v.acknowledge(1)
	v.quiet()

	v.write(wire.AppendForget(nil)) // ends the session with the connection
	v.gone(b, 1)
	if v = visit(t, b, expiring); v.present {
		t.Error("a session that was ended is there")
	}
	publishAll(t, sender, "a/b/c", 12, 12)
	v.quiet()
}

// A client with the same identifier takes the session over, however the one before is
// doing, and nothing is lost in that moment.
func TestTakeOverOfKeptSession(t *testing.T) {
	b, _ := start(t, broker.Options{KeepSessions: true})
	v := visit(t, b, expiring)
	v.subscribe("topic")
	sender := dial(t, b, brokertest.PeerOptions{})
	const count = 2000
	sent := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < count && err == nil; n++ {
			err = sender.Publish("topic", fmt.Append(nil, n), false)
		}
		sent <- err
	}()
	seen, takeovers := 0, 0
	for seen < count {
		p := v.next(wire.Publish)
		n := 0
		if _, err := fmt.Sscan(string(p.Payload), &n); err != nil {
			t.Fatal(err)
		}
		switch {
		case n == seen:
			seen++
		case n > seen || !p.Duplicate:
			t.Fatalf("message %d after %d", n, seen-1)
		}
		if n%7 != 0 { // the others come again
			v.write(wire.AppendPuback(nil, p.ID))
		}
		if seen%100 == 50 && takeovers < seen/100+1 {
			takeovers++
			if v = visit(t, b, expiring); !v.present {
				t.Fatal("the session was not there")
			}
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// The client says how many messages it takes before the first is acknowledged.
func TestReceiveMaximum(t *testing.T) {
	b, _ := start(t, broker.Options{KeepSessions: true})
	sender := dial(t, b, brokertest.PeerOptions{})
	o := expiring
	o.ReceiveMaximum = 3
	v := visit(t, b, o)
	v.subscribe("topic")
	publishAll(t, sender, "topic", 1, 6)
	wantHeard(t, v.hear(3), "1", "2", "3")
	v.quiet()
	v.acknowledge(2)
	wantHeard(t, v.hear(2), "4", "5")
	v.quiet()
	v.gone(b, 1)
	v = visit(t, b, o)
	wantHeard(t, v.hear(3), "3 again", "4 again", "5 again")
	v.quiet()
	v.acknowledge(3)
	wantHeard(t, v.hear(1), "6")
}

// A session that its client does not come back to ends, and one that is asked for anew
// has nothing of the one before.
func TestKeptSessionEnds(t *testing.T) {
	b, _ := start(t, broker.Options{KeepSessions: true})
	sender := dial(t, b, brokertest.PeerOptions{})
	v := visit(t, b, expiring)
	v.subscribe("topic")
	v.gone(b, 1)
	publishAll(t, sender, "topic", 1, 1)
	if v = visit(t, b, wire.ConnectOptions{SessionExpiry: 100}); v.present { // clean start
		t.Error("a new session has what the old one had")
	}
	v.subscribe("topic")
	v.gone(b, 1)
	if v = visit(t, b, wire.ConnectOptions{Continue: true}); v.present { // without expiry
		t.Error("a session was there for a client that wants none")
	}
	v.gone(b, 1)
	v = visit(t, b, wire.ConnectOptions{Continue: true, SessionExpiry: 1})
	v.subscribe("topic")
	v.gone(b, 1)
	testwait.Until(t, "the session expires", func() bool { return b.Stats().KeptSessions == 0 })
	if v = visit(t, b, expiring); v.present {
		t.Error("an expired session is there")
	}
}

// What waits for a client is bounded; what is dropped is the newest, and it is said.
func TestKeptSessionIsBounded(t *testing.T) {
	b, log := start(t, broker.Options{KeepSessions: true})
	v := visit(t, b, expiring)
	v.subscribe("topic")
	v.gone(b, 0)
	sender := dial(t, b, brokertest.PeerOptions{})
	payload := make([]byte, 1<<20)
	for n := range 70 {
		payload[0] = byte(n)
		if err := sender.Publish("topic", payload, false); err != nil {
			t.Fatal(err)
		}
	}
	v = visit(t, b, expiring)
	// The client reads nothing for a while: it gets its messages all the same.
	for range 10 {
		if err := sender.Publish("topic", payload, false); err != nil {
			t.Fatal(err)
		}
		if err := sender.Ping(); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for ; n < 60; n++ {
		if p := v.next(wire.Publish); len(p.Payload) != 1<<20 || p.Payload[0] != byte(n) {
			t.Fatalf("message %d is %d bytes that begin with %d", n, len(p.Payload), p.Payload[0])
		}
	}
	if !warned(log) {
		t.Errorf("the loss is not said:\n%s", log)
	}
}

func warned(log *testlog.Buffer) bool { return log.Has("level=WARN", "dropped", "client=visitor") }

// Retained messages come with the subscription, and the client's own unless it wants none.
func TestKeptSessionGetsRetained(t *testing.T) {
	b, _ := start(t, broker.Options{KeepSessions: true})
	sender := dial(t, b, brokertest.PeerOptions{})
	if err := sender.Retain("state/x", []byte("on")); err != nil {
		t.Fatal(err)
	}
	v := visit(t, b, expiring)
	v.write(wire.V5.AppendSubscribe(nil, 1, 1, "state/#"))
	heard := []string{}
	for range 2 {
		var p wire.Packet
		if err := v.packets.Next(&p); err != nil {
			t.Fatal(err)
		}
		if p.Type == wire.Publish {
			heard = append(heard, fmt.Sprint(string(p.Payload), p.Retain))
		}
	}
	wantHeard(t, heard, "ontrue")
	v.write(wire.V5.AppendPublish(nil, "state/own", []byte("mine"), 1, 9, true, false))
	for range 2 {
		var p wire.Packet
		if err := v.packets.Next(&p); err != nil {
			t.Fatal(err)
		}
		if p.Type == wire.Publish {
			heard = append(heard, fmt.Sprint(string(p.Payload), p.Retain))
		}
	}
	wantHeard(t, heard, "ontrue", "minefalse")
}

// Sessions and users exclude each other: the filters of a session are not checked again.
func TestKeptSessionsWithUsers(t *testing.T) {
	b, _ := start(t, broker.Options{})
	if _, err := broker.New(broker.Options{Listen: b.Addr().String(), KeepSessions: true, Users: []broker.User{{Name: "a", Password: "b"}}, Logger: new(testlog.Buffer).Logger()}); err == nil {
		t.Error("taken")
	}
}
