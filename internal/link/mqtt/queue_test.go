package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// stubborn is the broker's end of a connection in the hands of a test: it
// accepts one connection and its subscriptions, and acknowledges messages when
// it is told to.
type stubborn struct {
	t      *testing.T
	listen net.Listener
	conn   net.Conn
	mu     sync.Mutex
	got    []string // topics and payloads of the messages, as read
}

func startStubborn(t *testing.T) *stubborn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &stubborn{t: t, listen: l}
}

// accept takes the connection and answers CONNECT and one SUBSCRIBE of one topic.
func (s *stubborn) accept() {
	c, err := s.listen.Accept()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.conn = c
	if first, _ := s.packet(); first>>4 != byte(wire.Connect) {
		s.t.Errorf("first packet %#x", first)
	}
	s.write(0x20, 2, 0, 0)
	first, body := s.packet()
	if first>>4 != byte(wire.Subscribe) {
		s.t.Errorf("second packet %#x", first)
	}
	s.write(0x90, 3, body[0], body[1], 1)
}

func (s *stubborn) write(b ...byte) {
	if _, err := s.conn.Write(b); err != nil {
		s.t.Error(err)
	}
}

func (s *stubborn) packet() (first byte, body []byte) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return 0, nil
	}
	n, shift := int(head[1]&0x7f), 7
	for last := head[1]; last&0x80 != 0; shift += 7 {
		b := make([]byte, 1)
		if _, err := io.ReadFull(s.conn, b); err != nil {
			return 0, nil
		}
		last = b[0]
		n |= int(last&0x7f) << shift
	}
	body = make([]byte, n)
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return 0, nil
	}
	return head[0], body
}

// readMessages reads until the connection ends and acknowledges if asked to.
func (s *stubborn) readMessages(acknowledge bool) {
	for {
		first, body := s.packet()
		if first == 0 {
			return
		}
		if first>>4 != byte(wire.Publish) {
			continue
		}
		n := 2 + int(body[0])<<8 + int(body[1])
		s.mu.Lock()
		s.got = append(s.got, string(body[2:n])+" "+string(body[n+2:]))
		s.mu.Unlock()
		if acknowledge {
			_, _ = s.conn.Write([]byte{0x40, 2, body[n], body[n+1]}) // the link may have ended, and the test
		}
	}
}

func (s *stubborn) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got...)
}

func attachStubborn(t *testing.T, s *stubborn, o mqtt.Options) (*mqtt.Link, *recorder, link.Port, func()) {
	t.Helper()
	o.Address = s.listen.Addr().String()
	o.StopTimeout = 200 * time.Millisecond
	l := newLink(t, o)
	r, p := attach(t, l, id("company", "car"))
	stop := runLink(t, l)
	s.accept()
	waitUp(t, r)
	return l, r, p, stop
}

// The window bounds what is unacknowledged, the queue what waits; DiscardPending
// drops what waits except notifications (DEF-19, DEF-20).
func TestWindowQueueAndDiscard(t *testing.T) {
	s := startStubborn(t)
	l, r, p, stop := attachStubborn(t, s, mqtt.Options{Window: 2, QueueMessages: 5})
	read := make(chan struct{})
	go func() { s.readMessages(false); close(read) }()
	for _, m := range []string{"1", "2"} {
		if !p.Publish([]byte(m), link.Ack{}) {
			t.Fatalf("message %s was not accepted", m)
		}
	}
	testwait.Until(t, "the window is full", func() bool { return len(s.messages()) == 2 })
	for i := 3; i <= 7; i++ {
		if !p.Publish([]byte(fmt.Sprint(i)), link.Ack{}) {
			t.Errorf("message %d was not accepted by a queue of 5", i)
		}
	}
	if p.Publish([]byte("8"), link.Ack{}) {
		t.Error("the queue is not bounded")
	}
	if !p.NotifyDisconnect() {
		t.Error("a full queue keeps the notification from the car")
	}
	if st := l.State().Connections[0]; st.InFlight != 2 || st.Queued != 6 || st.DroppedQueueFull != 1 {
		t.Errorf("state: %+v", st)
	}
	p.DiscardPending()
	if !p.Publish([]byte("of the next session"), link.Ack{}) {
		t.Error("the queue was not emptied")
	}
	s.write(0x40, 2, 0, 1)
	s.write(0x40, 2, 0, 2)
	testwait.Until(t, "the rest is sent", func() bool { return len(s.messages()) == 4 })
	want := "company/car/external_server 1,company/car/external_server 2,company/car/external_server_disconnect ,company/car/external_server of the next session"
	if got := strings.Join(s.messages(), ","); got != want {
		t.Errorf("the broker got %s", got)
	}
	if st := l.State().Connections[0]; st.DroppedDiscarded != 5 || st.Queued != 0 {
		t.Errorf("state: %+v", st)
	}
	stop() // bounded, although two acknowledgements are missing
	<-read
	if len(r.lost()) != 1 {
		t.Errorf("the car was told %d times that the link is gone", len(r.lost()))
	}
	if p.Publish([]byte("after stop"), link.Ack{}) {
		t.Error("a stopped link accepts messages")
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	s := startStubborn(t)
	_, _, p, _ := attachStubborn(t, s, mqtt.Options{Window: 1, QueueBytes: 100, MaxPayload: 90})
	defer s.conn.Close()
	go s.readMessages(false)
	p.Publish([]byte("in flight"), link.Ack{})
	testwait.Until(t, "the window is full", func() bool { return len(s.messages()) == 1 })
	if !p.Publish(make([]byte, 60), link.Ack{}) || p.Publish(make([]byte, 60), link.Ack{}) || !p.Publish(make([]byte, 40), link.Ack{}) {
		t.Error("the queue does not take exactly 100 bytes")
	}
	if p.Publish(make([]byte, 91), link.Ack{}) {
		t.Error("a payload above MaxPayload was accepted")
	}
}

// What is queued at stop is sent and acknowledged before the connection ends in
// order.
func TestStopFlushes(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	l := newLink(t, mqtt.Options{Address: m.Address(), StopTimeout: testwait.Patience})
	car := id("company", "car")
	r, p := attach(t, l, car)
	stop := runLink(t, l)
	waitUp(t, r)
	g := gateway(t, m.Address(), car)
	for _, s := range numbers(500) {
		p.Publish([]byte(s), link.Ack{})
	}
	p.NotifyDisconnect()
	stop()
	for _, want := range numbers(500) {
		if got := hear(t, g); string(got.Payload) != want {
			t.Fatalf("got %s instead of %s", got.Payload, want)
		}
	}
	if got := hear(t, g); got.Topic != car.String()+"/external_server_disconnect" {
		t.Errorf("got %+v instead of the notification", got)
	}
	testwait.Until(t, "mosquitto has seen a DISCONNECT", func() bool { return strings.Contains(m.Log(), "Received DISCONNECT from es") })
}

// One car that is sent much does not keep another one waiting.
func TestFairBetweenCars(t *testing.T) {
	s := startStubborn(t)
	l, _, busy, _ := attachStubborn(t, s, mqtt.Options{Window: 1})
	r := &recorder{}
	quiet, err := l.Attach(id("company", "quiet"), r)
	if err != nil {
		t.Fatal(err)
	}
	_, body := s.packet() // SUBSCRIBE
	s.write(0x90, 3, body[0], body[1], 1)
	waitUp(t, r)
	for _, m := range numbers(100) {
		busy.Publish([]byte(m), link.Ack{})
	}
	quiet.Publish([]byte("hello"), link.Ack{})
	go s.readMessages(true)
	testwait.Until(t, "everything is sent", func() bool { return len(s.messages()) == 101 })
	for i, m := range s.messages() {
		if m == "company/quiet/external_server hello" {
			if i > 2 {
				t.Errorf("the quiet car's only message was number %d", i+1)
			}
			return
		}
	}
	t.Error("the message is missing")
}

// A broker that acknowledges nothing is given up.
func TestNoAcknowledgement(t *testing.T) {
	s := startStubborn(t)
	_, r, p, _ := attachStubborn(t, s, mqtt.Options{AckTimeout: 100 * time.Millisecond, KeepAlive: time.Second})
	go s.readMessages(false)
	p.Publish([]byte("x"), link.Ack{})
	testwait.Until(t, "the loss is noticed", func() bool { return len(r.lost()) > 0 })
	if err := r.lost()[0]; !strings.Contains(err.Error(), "acknowledged") && !strings.Contains(err.Error(), "ping") {
		t.Errorf("reason: %v", err)
	}
}

func TestOversizedMessageIsSkipped(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		log, logger := newTestLog(t)
		l := startLink(t, mqtt.Options{Address: address, Logger: logger, MaxPayload: 100_000})
		car := id("company", "car")
		r, _ := attach(t, l, car)
		waitUp(t, r)
		g := gateway(t, address, car)
		say(t, g, car, "before")
		say(t, g, car, strings.Repeat("x", 100_001))
		say(t, g, car, strings.Repeat("x", 100_000))
		say(t, g, car, "after")
		testwait.Until(t, "what fits arrives", func() bool { return len(r.received()) == 3 })
		if got := r.received(); got[0] != "before" || len(got[1]) != 100_000 || got[2] != "after" {
			t.Errorf("got %.100q", got)
		}
		if len(r.lost()) > 0 {
			t.Errorf("the connection was lost: %v", r.lost())
		}
		if l.State().Connections[0].IgnoredOversized != 1 || log.count("level=INFO", "too large", car.String()) != 1 {
			t.Error("the message was not counted and logged")
		}
	})
}

// Redeliveries keep their mark; QoS 0 and empty messages arrive.
func TestDeliveryDetails(t *testing.T) {
	s := startStubborn(t)
	_, r, _, _ := attachStubborn(t, s, mqtt.Options{})
	defer s.conn.Close()
	topic := "company/car/module_gateway"
	s.write(wire.AppendPublish(nil, topic, []byte("again"), 1, 7, false, true)...)
	s.write(wire.AppendPublish(nil, topic, nil, 0, 0, false, false)...)
	s.write(wire.AppendPublish(nil, "company/other/module_gateway", []byte("foreign"), 1, 8, false, false)...)
	for _, want := range []byte{7, 8} {
		if first, body := s.packet(); first != 0x40 || body[1] != want {
			t.Errorf("got packet %#x %v instead of PUBACK %d", first, body, want)
		}
	}
	testwait.Until(t, "both messages arrive", func() bool { return len(r.received()) == 2 })
	if got := r.received(); got[0] != "again" || got[1] != "" || r.dups != 1 {
		t.Errorf("got %q, %d duplicates", got, r.dups)
	}
}

func TestPresence(t *testing.T) {
	brokers(t, func(t *testing.T, address string) {
		const topic = "company/external_server_status"
		watcher, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
		if err != nil {
			t.Fatal(err)
		}
		defer watcher.Conn.Close()
		if err := watcher.Subscribe(1, topic); err != nil {
			t.Fatal(err)
		}
		l := newLink(t, mqtt.Options{Address: address, Presence: topic})
		stop := runLink(t, l)
		if m := hear(t, watcher); string(m.Payload) != "online" {
			t.Errorf("got %q", m.Payload)
		}
		late, err := brokertest.Dial(brokertest.PeerOptions{Address: address})
		if err != nil {
			t.Fatal(err)
		}
		defer late.Conn.Close()
		if err := late.Subscribe(1, topic); err != nil {
			t.Fatal(err)
		}
		if m := hear(t, late); string(m.Payload) != "online" || !m.Retain {
			t.Errorf("retained: %+v", m)
		}
		stop()
		if m := hear(t, watcher); string(m.Payload) != "offline" {
			t.Errorf("got %q", m.Payload)
		}
	})
}

func TestRunTwice(t *testing.T) {
	l := newLink(t, mqtt.Options{Address: "127.0.0.1:1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := l.Run(ctx); err == nil {
		t.Error("the second Run did not fail")
	}
}
