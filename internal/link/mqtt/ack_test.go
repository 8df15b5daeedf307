package mqtt_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/wire"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// accept5 takes the connection of a link with sessions of one car: CONNECT, then SUBSCRIBE
// for the car and for the private topic, then the greeting.
func (s *stubborn) accept5(connack ...byte) {
	c, err := s.listen.Accept()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.conn = c
	if first, body := s.packet(); first>>4 != byte(wire.Connect) || body[6] != 5 {
		s.t.Errorf("first packet %#x", first)
	}
	s.write(connack...)
	for answered := 0; answered < 3; answered++ {
		first, body := s.packet()
		switch wire.Type(first >> 4) {
		case wire.Subscribe:
			s.write(0x90, 4, body[0], body[1], 0, 1)
		case wire.Publish:
			s.acknowledgePublish(body)
		default:
			s.t.Fatalf("packet %#x", first)
		}
	}
}

func (s *stubborn) acknowledgePublish(body []byte) {
	n := 2 + int(body[0])<<8 + int(body[1])
	s.write(0x40, 2, body[n], body[n+1])
}

// next returns the next packet that is not about the private topic.
func (s *stubborn) next() (wire.Type, []byte) {
	for {
		first, body := s.packet()
		if wire.Type(first>>4) == wire.Publish && bytes.HasPrefix(body[2:], []byte("external_server/")) {
			s.acknowledgePublish(body)
			continue
		}
		return wire.Type(first >> 4), body
	}
}

// The acknowledgement of a message leaves immediately before its answer; one without answer
// leaves in the order of its car, also when what is queued before is discarded. Used twice,
// or after the connection, it does nothing, and a car that leaves owes nothing.
func TestAcknowledgementsLeaveWithTheirAnswers(t *testing.T) {
	s := startStubborn(t)
	l := newLink(t, mqtt.Options{Address: s.listen.Addr().String(), Sessions: &mqtt.Sessions{ClientID: "es", Shards: 1, Flush: func(int) error { return nil }}})
	var mu sync.Mutex
	var acks []link.Ack
	k := attachKeeper(t, l, id("company", "car"), func(_ *keeper, _ string, d link.Delivery) {
		mu.Lock()
		defer mu.Unlock()
		acks = append(acks, d.Ack)
	})
	runSuspendable(t, l)
	s.accept5(0x20, 6, 0, 0, 3, 0x21, 0, 2) // receive maximum 2
	defer func() { s.conn.Close() }()
	deliver := func(ids ...uint16) {
		t.Helper()
		for _, n := range ids {
			s.write(wire.V5.AppendPublish(nil, "company/car/module_gateway", []byte("x"), 1, n, false, false)...)
		}
		testwait.Until(t, "the messages arrive", func() bool { mu.Lock(); defer mu.Unlock(); return len(acks) >= int(ids[len(ids)-1]) })
	}
	deliver(1, 2, 3, 4, 5, 6, 7)
	testwait.Until(t, "nothing waits for the broker", func() bool { return l.State().Connections[0].InFlight == 0 })
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			kind, body := s.next()
			got := kind.String()
			switch kind {
			case wire.Puback:
				got = fmt.Sprintf("ack %d", body[1])
			case wire.Publish:
				n := 2 + int(body[0])<<8 + int(body[1])
				got = string(body[n+3:])
			}
			if got != w {
				t.Errorf("got %s instead of %s", got, w)
			}
		}
	}
	k.port.Acknowledge(acks[2])
	k.port.Acknowledge(acks[2])
	k.port.Publish([]byte("one"), acks[0])
	k.port.Publish([]byte("two"), acks[1])
	k.port.Publish([]byte("once more"), acks[0]) // waits, as the broker takes two
	k.port.Publish([]byte("four"), acks[3])      // is discarded
	k.port.Acknowledge(acks[4])
	k.port.Publish([]byte("six"), acks[5])
	expect("ack 3", "ack 1", "one", "ack 2", "two")
	k.port.DiscardPending()
	k.port.Publish([]byte("last"), link.Ack{})
	if n := l.State().Connections[0].Unacknowledged; n != 1 {
		t.Errorf("%d messages wait to be acknowledged", n)
	}
	s.write(0x40, 2, 0, 2)
	s.write(0x40, 2, 0, 3)
	expect("ack 4", "ack 5", "ack 6", "last")
	k.port.Close()
	expect("ack 7", "UNSUBSCRIBE")
	k.port.Acknowledge(acks[6])
	k.port.Acknowledge(link.Ack{Connection: 99, Packet: 1})
	if n := l.State().Connections[0].Unacknowledged; n != 0 {
		t.Errorf("%d messages wait to be acknowledged", n)
	}
}

// With sessions a watch finds cars over a connection of its own; each message of a car that
// it finds arrives once, and the next process finds the car in its session.
func TestWatchBesideSessions(t *testing.T) {
	m := brokertest.Start(t, brokertest.Options{})
	opts := mqtt.Options{Address: m.Address(), Sessions: sessions(3, "one")}
	l := newLink(t, opts)
	named := attachKeeper(t, l, id("company", "named"), nil)
	var mu sync.Mutex
	found := make(map[fleet.CarID]*keeper)
	if _, err := l.Watch("company", func(car fleet.CarID, _ []byte) {
		if car.Car == "unwanted" {
			return
		}
		k := attachKeeper(t, l, car, func(k *keeper, payload string, d link.Delivery) {
			if !k.port.Publish([]byte("re "+payload), d.Ack) {
				k.port.Acknowledge(d.Ack)
			}
		})
		mu.Lock()
		found[car] = k
		mu.Unlock()
	}); err != nil {
		t.Fatal(err)
	}
	end := runSuspendable(t, l)
	testwait.Until(t, "the link is up", func() bool { return l.State().Up })
	if s := l.State().Connections; len(s) != 4 || s[3].Kept {
		t.Errorf("state: %+v", s)
	}
	cars := []fleet.CarID{id("company", "new_1"), id("company", "new_2"), id("company", "named"), id("company", "unwanted")}
	g := gateway(t, m.Address(), cars[0])
	for _, s := range numbers(100) {
		for _, car := range cars {
			say(t, g, car, s)
		}
	}
	// Each once. While the watch hands a car over to its own connection, what comes over
	// the one can overtake what comes over the other: a gateway has not more than one
	// message on its way then, and its statuses are numbered.
	answers := make(map[string]int)
	for range numbers(100) {
		answers[string(hear(t, g).Payload)]++
	}
	for _, n := range numbers(100) {
		if answers["re "+n] != 1 {
			t.Errorf("%d answers to %s", answers["re "+n], n)
		}
	}
	want := append([]string{"fresh"}, numbers(100)...)
	testwait.Until(t, "both cars are found", func() bool { mu.Lock(); defer mu.Unlock(); return len(found) == 2 })
	mu.Lock()
	all := []*keeper{named, found[cars[0]], found[cars[1]]}
	mu.Unlock()
	for i, k := range all {
		testwait.Until(t, "all messages arrive", func() bool { return len(k.heard()) >= len(want) })
		got := k.heard()
		if i > 0 { // found by the watch
			slices.Sort(got[1:])
			slices.Sort(want[1:])
		}
		if !slices.Equal(got, want) {
			t.Errorf("car %d heard %q", i, got)
		}
	}
	end(link.ErrSuspend)
	say(t, g, cars[0], "meanwhile")
	l = newLink(t, opts)
	k := attachKeeper(t, l, cars[0], nil)
	runSuspendable(t, l)
	testwait.Until(t, "the backlog is read", func() bool { return slices.Equal(k.heard(), []string{"continued", "meanwhile", "read"}) })
}
