package mqtt_test

import (
	"slices"
	"testing"

	"external-server/internal/link/mqtt"
	"external-server/internal/link/mqtt/barrier"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// kick takes the only connection of the link over as a client of the same identifier does, and
// waits until the link has it again.
func kick(t *testing.T, l *mqtt.Link, address string) {
	t.Helper()
	at := l.State().Connections[0]
	p, err := brokertest.Dial(brokertest.PeerOptions{Address: address, ClientID: at.ClientID})
	if err != nil {
		t.Fatal(err)
	}
	testwait.Until(t, "the link has noticed", func() bool { now := l.State().Connections[0]; return !now.Up || now.Since != at.Since })
	_ = p.Close()
	testwait.Until(t, "the link is up again", func() bool { return l.State().Up })
}

// A stranger who uses the client identifier is told in the log, and what strangers publish on
// the topic of the connection makes no server of them: the link serves on.
func TestStrangers(t *testing.T) {
	m := plain(t, "")
	car := id("company", "car")
	log, logger := newTestLog(t)
	l := newLink(t, mqtt.Options{Address: m.Address(), Sessions: sessions(1, "host a, process 1"), Logger: logger})
	k := attachKeeper(t, l, car, nil)
	runSuspendable(t, l)
	testwait.Until(t, "it is up", func() bool { return l.State().Up })
	const text = "does another client use its client identifier?"
	for range 5 {
		if log.count(text) != 0 {
			t.Fatal("told before")
		}
		kick(t, l, m.Address())
	}
	if n := log.count("level=WARN", text, l.State().Connections[0].ClientID); n != 1 {
		t.Errorf("told %d times", n)
	}
	g := gateway(t, m.Address(), car)
	testwait.Until(t, "the car is served", func() bool {
		say(t, g, car, "hello")
		return slices.Contains(k.heard(), "hello")
	})
	// The connection tells strangers by what it has said itself, so they come after that.
	topic := "external_server/" + l.State().Connections[0].ClientID
	watch := gateway(t, m.Address(), car)
	if err := watch.Subscribe(1, topic); err != nil {
		t.Fatal(err)
	}
	for own := (barrier.Greeting{}); uint64(own.Connection) < l.State().Connections[0].Connects; {
		if m := hear(t, watch); m.Topic == topic {
			own, _ = barrier.Parse(m.Payload)
		}
	}
	for n := range uint32(4) {
		forged := barrier.Greeting{Connection: 100 + n, Number: 1, Token: "stranger", Self: "host b, process 2"}
		if err := g.Publish(topic, forged.Encode(), false); err != nil {
			t.Fatal(err)
		}
	}
	say(t, g, car, "behind what is forged")
	testwait.Until(t, "the car is served on", func() bool { return slices.Contains(k.heard(), "behind what is forged") })
	if s := l.State(); s.Stopped != "" || !s.Up {
		t.Errorf("the link has given way: %+v", s)
	}
	if n := log.count("host b, process 2"); n != 0 {
		t.Errorf("the stranger is told %d times as a server", n)
	}
}
