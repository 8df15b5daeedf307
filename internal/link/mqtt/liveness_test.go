package mqtt_test

import (
	"testing"
	"time"

	"external-server/internal/link/mqtt"
	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// What the broker answers to a question proves that the connection was the link's when it was asked, and nothing about
// later: a broker that stands still proves nothing, and neither does a connection that is lost.
func TestProved(t *testing.T) {
	broker := brokertest.Start(t, brokertest.Options{})
	l := startLink(t, mqtt.Options{Address: broker.Address(), Sessions: sessions(1, "one")})
	r, _ := attach(t, l, carOf(0, 1))
	waitUp(t, r)
	if at := l.Proved(); !at.IsZero() {
		t.Errorf("proved at %v, and the broker was not asked", at)
	}
	asked := time.Now()
	l.Prove()
	testwait.Until(t, "the broker has answered", func() bool { return !l.Proved().IsZero() })
	first := l.Proved()
	if first.Before(asked) || first.After(time.Now()) {
		t.Errorf("proved at %v, asked at %v", first, asked)
	}
	broker.Stop()
	l.Prove()
	l.Prove()
	if at := l.Proved(); !at.Equal(first) {
		t.Errorf("proved at %v by a broker that stands still", at)
	}
	broker.Continue()
	testwait.Until(t, "the broker has answered again", func() bool { return l.Proved().After(first) })
	broker.Kill()
	testwait.Until(t, "the connection is lost", func() bool { return !l.State().Up })
	if at := l.Proved(); !at.IsZero() {
		t.Errorf("proved at %v without connection", at)
	}
}
