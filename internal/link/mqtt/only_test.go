package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"external-server/internal/broker"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// carOf returns a car of the shard.
func carOf(shard, shards int) fleet.CarID {
	for n := 0; ; n++ {
		if c := id("company", fmt.Sprint("car", n)); mqtt.Shard(c, shards) == shard {
			return c
		}
	}
}

// A link that serves some shards has their connections only, and refuses the cars of others.
func TestOnlySomeShards(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	s := sessions(8, "one")
	s.Only = []int{5, 2}
	l := startLink(t, mqtt.Options{Address: address, Sessions: s})
	two, _ := attach(t, l, carOf(2, 8))
	five, _ := attach(t, l, carOf(5, 8))
	waitUp(t, two, five)
	if _, err := l.Attach(carOf(0, 8), &recorder{}); err == nil || !strings.Contains(err.Error(), "shard 0 of 8, which this link does not serve (it serves [5 2])") {
		t.Errorf("a car of another shard: %v", err)
	}
	ids := map[string]bool{}
	for _, c := range l.State().Connections {
		ids[c.ClientID] = true
	}
	if len(ids) != 2 || !ids["es-test-2"] || !ids["es-test-5"] {
		t.Errorf("the connections are %v", ids)
	}
	for _, bad := range [][]int{{}, {8}, {-1}, {1, 1}} {
		s := sessions(8, "one")
		s.Only = bad
		if _, err := mqtt.New(mqtt.Options{Address: address, Sessions: s, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("only %v is accepted", bad)
		}
	}
	s = sessions(8, "one")
	s.Announce = func(int) (string, []byte) { return "x", nil }
	if _, err := mqtt.New(mqtt.Options{Address: address, Sessions: s, Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("an epoch without a fence is accepted")
	}
}

// Two links that serve different shards do not disturb each other.
func TestShardsOfTwoLinks(t *testing.T) {
	address := brokertest.Start(t, brokertest.Options{}).Address()
	var all []*recorder
	var links []*mqtt.Link
	for half := range 2 {
		s := sessions(4, fmt.Sprint("half ", half))
		s.Only = []int{2 * half, 2*half + 1}
		l := startLink(t, mqtt.Options{Address: address, Sessions: s})
		for _, shard := range s.Only {
			r, _ := attach(t, l, carOf(shard, 4))
			all = append(all, r)
		}
		links = append(links, l)
	}
	waitUp(t, all...)
	for _, l := range links {
		for _, c := range l.State().Connections {
			if c.Connects != 1 || c.TakenOver != 0 {
				t.Errorf("%s: %d connections, taken over %d times", c.ClientID, c.Connects, c.TakenOver)
			}
		}
	}
}

// fencedBy returns options of a shard whose fence is a function.
func fencedBy(mayConnect func() error) *mqtt.Sessions {
	s := sessions(1, "fenced")
	s.Announce = func(shard int) (string, []byte) { return "epoch", []byte("1") }
	s.MayConnect = func(context.Context, int) error { return mayConnect() }
	return s
}

// A broker that cannot keep sessions is an error that says what is needed, and nothing is served: a
// clean session would be one that no server can take over.
func TestFencedShardNeedsSessions(t *testing.T) {
	b := startEmbedded(t, broker.Options{})
	log, logger := newTestLog(t)
	l := startLink(t, mqtt.Options{Address: b.Addr().String(), Sessions: fencedBy(func() error { return nil }), Logger: logger})
	r, _ := attach(t, l, id("company", "car"))
	testwait.Until(t, "the reason is told", func() bool {
		return strings.Contains(l.State().LastError, "a cluster needs a broker that speaks MQTT 5 and keeps sessions")
	})
	if r.upCount() > 0 || l.State().Up || l.State().Declined != "" {
		t.Errorf("the car is served: %+v", l.State())
	}
	if log.count("a restart of this server") > 0 {
		t.Error("it is told as if sessions were kept on this machine")
	}
}

// As long as the fence cannot be read the link asks again, and nothing leaves; then it goes on.
func TestUnreadableFence(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	away := errors.New("the epoch cannot be read")
	var asked atomic.Int32
	l := startLink(t, mqtt.Options{Address: m.Address(), Sessions: fencedBy(func() error {
		if asked.Add(1) < 4 {
			return away
		}
		return nil
	})})
	r, _ := attach(t, l, id("company", "car"))
	waitUp(t, r)
	if n := asked.Load(); n < 4 {
		t.Errorf("asked %d times", n)
	}
	const sent = "Received SUBSCRIBE from es-test-0"
	testwait.Until(t, "the broker's log has it", func() bool { return strings.Contains(m.Log(), sent) })
	for _, text := range []string{"Received PUBLISH from es-test-0", sent} {
		if first := strings.Index(m.Log(), text); first < strings.LastIndex(m.Log(), "New client connected from") {
			t.Errorf("%q is at %d: something was sent before the fence was read", text, first)
		}
	}
}

// The other shards of a link end as silently: the server that goes on with them finds the broker's session.
func TestFencedOffKeepsSessions(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	var off atomic.Bool
	s := fencedBy(nil)
	s.Shards = 2
	s.MayConnect = func(_ context.Context, shard int) error {
		if off.Load() && shard == 0 {
			return fmt.Errorf("%w: by this test", link.ErrFenced)
		}
		return nil
	}
	l := newLink(t, mqtt.Options{Address: m.Address(), Sessions: s})
	zero, _ := attach(t, l, carOf(0, 2))
	one, _ := attach(t, l, carOf(1, 2))
	done := make(chan error, 1)
	go func() { done <- l.Run(t.Context()) }()
	waitUp(t, zero, one)
	off.Store(true)
	dial := func(id string) (kept bool) {
		nc, err := net.Dial("tcp", m.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write(wire.AppendConnect(nil, wire.ConnectOptions{Version: wire.V5, ClientID: id, Continue: true, SessionExpiry: 120, KeepAlive: 60})); err != nil {
			t.Fatal(err)
		}
		r := wire.NewReader(nc, 0)
		r.Speak(wire.V5)
		var p wire.Packet
		if err := r.Next(&p); err != nil || p.Type != wire.Connack || p.Code != 0 {
			t.Fatalf("%+v %v", p, err)
		}
		return p.Present
	}
	dial("es-test-0") // ends the connection, so that the link asks
	if err := <-done; !errors.Is(err, link.ErrFenced) {
		t.Fatal(err)
	}
	if !dial("es-test-1") {
		t.Error("the session of the other shard is gone")
	}
}

// A link that was fenced off ends with the reason, whatever it is doing.
func TestFencedOffEnds(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	var off atomic.Bool
	l := newLink(t, mqtt.Options{Address: m.Address(), Presence: "presence", Sessions: fencedBy(func() error {
		if off.Load() {
			return fmt.Errorf("%w: by this test", link.ErrFenced)
		}
		return nil
	})})
	r, p := attach(t, l, id("company", "car"))
	done := make(chan error, 1)
	go func() { done <- l.Run(t.Context()) }()
	waitUp(t, r)
	off.Store(true)
	m.Kill()
	select {
	case err := <-done:
		if !errors.Is(err, link.ErrFenced) {
			t.Error(err)
		}
	case <-time.After(testwait.Patience):
		t.Fatal("the link goes on")
	}
	if p.Publish([]byte("x"), link.Ack{}) {
		t.Error("the port accepts a message")
	}
	if len(r.lost()) != 1 {
		t.Errorf("the car heard %v", r.lost())
	}
}
