package mqtt

import (
	"log/slog"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt/wire"
)

// answerer answers each message at once, with the acknowledgement in front.
type answerer struct {
	port link.Port
	text []byte
}

func (r *answerer) Message(_ []byte, d link.Delivery) bool { return r.port.Publish(r.text, d.Ack) }
func (r *answerer) Sent()                                  {}
func (r *answerer) LinkUp(link.Up)                         {}
func (r *answerer) BacklogRead()                           {}
func (r *answerer) LinkDown(error, bool)                   {}

// hotPath returns a function that takes one message of a car through a connection without
// socket: it is delivered, answered, written to buffer and acknowledged by the broker.
func hotPath(t testing.TB, sessions *Sessions) (step func()) {
	l, err := New(Options{Address: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler), Sessions: sessions})
	if err != nil {
		t.Fatal(err)
	}
	r := &answerer{text: make([]byte, 150)}
	car := fleet.CarID{Company: "acme", Car: "car"}
	if r.port, err = l.Attach(car, r); err != nil {
		t.Fatal(err)
	}
	c := l.conns[0]
	c.pace = l.pacing.Reader(nil)
	agreed := c.Terms
	agreed.Version, agreed.Persistent, agreed.KeepAlive = wire.V5, sessions != nil, 15*time.Second
	c.begin(agreed)
	c.collect(nil)
	m := wire.Packet{Type: wire.Publish, Topic: []byte("acme/car" + fleet.TopicFromGateway), Payload: make([]byte, 150), QoS: 1}
	buf := make([]byte, 0, batchBytes)
	ack := wire.Packet{Type: wire.Puback}
	return func() {
		m.ID = m.ID%1000 + 1
		if err := c.deliver(&m); err != nil {
			t.Fatal(err)
		}
		c.sent()
		if buf = c.collect(buf[:0]); len(buf) < 150 {
			t.Fatalf("%d bytes written", len(buf))
		}
		ack.ID = c.messages.Last()
		if err := c.handle(&ack); err != nil {
			t.Fatal(err)
		}
	}
}

// A message and its answer allocate nothing: at 35 000 of them a second that would be most of
// what they cost.
func TestAnswerAllocatesNothing(t *testing.T) {
	for name, sessions := range map[string]*Sessions{"clean": nil, "kept": {ClientID: "es", Shards: 1}} {
		t.Run(name, func(t *testing.T) {
			step := hotPath(t, sessions)
			if n := testing.AllocsPerRun(2000, step); n != 0 {
				t.Errorf("%v allocations for each message", n)
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	for name, sessions := range map[string]*Sessions{"clean": nil, "kept": {ClientID: "es", Shards: 1}} {
		b.Run(name, func(b *testing.B) {
			step := hotPath(b, sessions)
			for b.Loop() {
				step()
			}
		})
	}
}
