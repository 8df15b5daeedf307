package broker

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	mqtt "github.com/wind-c/comqtt/v2/mqtt"
	"github.com/wind-c/comqtt/v2/mqtt/packets"

	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

// startInside starts a broker whose library can be held up by a hook.
func startInside(t testing.TB, o Options, prepare func(*Broker)) (*Broker, *testlog.Buffer) {
	t.Helper()
	log := &testlog.Buffer{}
	o.Listen, o.Logger = "127.0.0.1:0", slog.New(slog.NewTextHandler(log, nil))
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(b)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b, log
}

func dialInside(t testing.TB, b *Broker) *brokertest.Peer {
	t.Helper()
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: b.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Conn.Close() })
	return p
}

// hook is a place in the library where a test does something.
type hook struct {
	mqtt.HookBase
	complete   func()
	read       func(*packets.Packet)
	disconnect func(*mqtt.Client)
}

func (*hook) ID() string { return "test" }
func (h *hook) Provides(method byte) bool {
	return method == mqtt.OnQosComplete && h.complete != nil || method == mqtt.OnPacketRead && h.read != nil || method == mqtt.OnDisconnect && h.disconnect != nil
}
func (h *hook) OnQosComplete(*mqtt.Client, packets.Packet)    { h.complete() }
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) { h.disconnect(cl) }
func (h *hook) OnPacketRead(_ *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	h.read(&pk)
	return pk, nil
}

// The library acknowledges a message before it queues it for the subscribers. A
// broker that is closed in between delivers it all the same, also when the publisher
// has left.
func TestCloseDeliversWhatIsOnlyAcknowledged(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	subscriber := dialInside(t, b)
	if err := subscriber.Subscribe(1, "a"); err != nil {
		t.Fatal(err)
	}
	acknowledged, queue := make(chan struct{}), make(chan struct{})
	err := b.server.AddHook(&hook{complete: func() {
		select {
		case <-acknowledged: // of the subscriber
		default:
			close(acknowledged)
			<-queue
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	publisher := dialInside(t, b)
	if err := publisher.Publish("a", []byte("the last message"), false); err != nil {
		t.Fatal(err)
	}
	publisher.Conn.Close()
	<-acknowledged
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	select { // the port is free as soon as Close has begun
	case <-b.listener.closed:
	case <-time.After(testwait.Patience):
		t.Fatal("the broker does not close")
	}
	if n := b.listener.undelivered(); n == 0 {
		t.Error("nothing is thought to be on its way")
	}
	close(queue)
	m, err := subscriber.Receive(testwait.Patience)
	if err != nil || string(m.Payload) != "the last message" {
		t.Errorf("got %q, error %v", m.Payload, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// What is counted as being on its way is nothing when nothing is.
func TestNothingIsOnItsWayAfterTraffic(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	var all []*brokertest.Peer
	for qos := range byte(2) {
		p := dialInside(t, b)
		if err := p.Subscribe(qos, "a/+", "b", "#"); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	publisher := dialInside(t, b)
	for range 100 {
		for _, topic := range []string{"a/x", "b", "c"} {
			if err := publisher.Publish(topic, []byte("x"), false); err != nil {
				t.Fatal(err)
			}
			for _, p := range all {
				if _, err := p.Receive(testwait.Patience); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	testwait.Until(t, "nothing is on its way", func() bool { return b.listener.undelivered() == 0 })
	b.listener.mu.Lock()
	defer b.listener.mu.Unlock()
	for c := range b.listener.conns {
		if n := c.delivery.queued.Load(); n != 0 {
			t.Errorf("%d messages are counted as queued", n)
		}
	}
}

// A packet on which the library panics ends its sender and no other client, and the
// log says so.
func TestPanicOfTheLibrary(t *testing.T) {
	b, log := startInside(t, Options{}, nil)
	err := b.server.AddHook(&hook{read: func(pk *packets.Packet) {
		if pk.TopicName == "panic" {
			panic("of the library")
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	witness := dialInside(t, b)
	if err := witness.Subscribe(1, "a"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		p := dialInside(t, b)
		if err := p.Send("panic", nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Conn.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, p.Conn); err != nil {
			t.Fatal(err)
		}
	}
	if err := witness.Publish("a", []byte("still here"), false); err != nil {
		t.Fatal(err)
	}
	if m, err := witness.Receive(testwait.Patience); err != nil || string(m.Payload) != "still here" {
		t.Errorf("got %+v, error %v", m, err)
	}
	testwait.Until(t, "the broker has done with the clients", func() bool { // they see the end before it says why
		b.listener.mu.Lock()
		defer b.listener.mu.Unlock()
		return len(b.listener.conns) == 1
	})
	if n := strings.Count(log.String(), "failed on a client's packet"); n != 1 {
		t.Errorf("logged %d times, expected once", n)
	}
}

// More clients that do not introduce themselves than there is room for: the oldest has
// to go, and a client that does comes in.
func TestStrangersMakeRoom(t *testing.T) {
	b, log := startInside(t, Options{ConnectTimeout: time.Hour}, nil)
	b.listener.room.mu.Lock()
	b.listener.room.most, b.listener.room.grace = 5, time.Millisecond
	b.listener.room.mu.Unlock()
	var strangers []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		strangers = append(strangers, c)
	}
	p := dialInside(t, b)
	if err := p.Ping(); err != nil {
		t.Fatal(err)
	}
	if err := strangers[0].SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := strangers[0].Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the oldest was not ended: %v", err)
	}
	if !strings.Contains(log.String(), "too many of them are waiting") {
		t.Error("the log does not say so")
	}
}

// A session that its client has ended is gone when the client sees the end of the connection, however long the broker
// takes to clean up after it.
func TestSessionEndsWithTheLastPacket(t *testing.T) {
	b, _ := startInside(t, Options{KeepSessions: true}, nil)
	left, cleanUp := make(chan struct{}), make(chan struct{})
	err := b.server.AddHook(&hook{disconnect: func(cl *mqtt.Client) {
		if cl.ID == "visitor" {
			left <- struct{}{}
			<-cleanUp
		}
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	visit := func() *wire.Conn {
		t.Helper()
		c, err := wire.Dial(t.Context(), wire.DialOptions{Address: b.Addr().String(), MaxPayload: 1000,
			Connect: wire.ConnectOptions{Version: wire.V5, ClientID: "visitor", Continue: true, SessionExpiry: 100, KeepAlive: 60}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := visit()
	if _, err := c.Write(wire.AppendForget(nil)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(testwait.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	<-left
	if n := b.sessions.len(); n != 0 {
		t.Errorf("%d sessions are kept", n)
	}
	close(cleanUp)
	again := visit()
	if again.Present() {
		t.Error("the session is still there")
	}
	again.Close()
	<-left
}
