package demo

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/lab/gateway"
)

// While the servers stop, a car that was told so tries to connect again and is refused.
// That is no part of its story, and would read as a fault.
func TestACarIsNotToldOfAfterItsLastGoodbye(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(&out)
	first, second := n.observe("car_a", true), n.observe("car_b", true)
	first(gateway.Effect{Kind: gateway.EffectConnected})
	second(gateway.Effect{Kind: gateway.EffectConnected})
	second(gateway.Effect{Kind: gateway.EffectDisconnected, Reason: gateway.ReasonNotified})
	second(gateway.Effect{Kind: gateway.EffectSequenceFailed, Reason: gateway.ReasonNotified})
	n.ends("stopping")
	first(gateway.Effect{Kind: gateway.EffectDisconnected, Reason: gateway.ReasonNotified})
	said := out.Len()
	first(gateway.Effect{Kind: gateway.EffectSequenceFailed, Reason: gateway.ReasonNotified})
	n.say("car_a", "its device reports")
	if more := out.String()[said:]; more != "" {
		t.Errorf("told after the end of its session: %q", more)
	}
	for _, want := range []string{"car_b    could not connect", "car_a    disconnected"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not told: %q in %s", want, &out)
		}
	}
}

// The demo waits for what its servers have told the cars, a moment at most.
func TestGoodbyes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNarrator(io.Discard)
		car := n.observe("car_a", true)
		for _, c := range []struct{ told, waited time.Duration }{{time.Second, time.Second}, {time.Minute, goodbyeTime}} {
			car(gateway.Effect{Kind: gateway.EffectConnected})
			at := time.Now()
			told := time.AfterFunc(c.told, func() { car(gateway.Effect{Kind: gateway.EffectDisconnected, Reason: gateway.ReasonNotified}) })
			n.goodbyes()
			if waited := time.Since(at); waited < c.waited || waited > c.waited+5*time.Millisecond {
				t.Errorf("told after %v: waited %v", c.told, waited)
			}
			told.Stop()
		}
	})
}
