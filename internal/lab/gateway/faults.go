package gateway

import (
	"fmt"
	"math/rand/v2"
)

// Faults are what a gateway, or the network between it and the server, does wrong.
// The probabilities, 0 to 1, hold for each message the gateway sends.
type Faults struct {
	Lose      float64 // the message is not sent
	Duplicate float64 // it is sent twice
	Reorder   float64 // it is sent after the next one
	Garbage   float64 // random bytes are sent before it
	Silent    bool    // nothing is sent, nothing is heard; the gateway does not know
}

func (f Faults) check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"lose", f.Lose}, {"duplicate", f.Duplicate}, {"reorder", f.Reorder}, {"garbage", f.Garbage}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("fault %q has probability %v: expected 0 to 1", p.name, p.value)
		}
	}
	return nil
}

// SetFaults changes the faults of the gateway from now on. An error names the value
// that is not a probability; the faults stay as they were.
func (g *Gateway) SetFaults(f Faults) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("gateway of car %v: %w", g.car, err)
	}
	g.faults.Store(&f)
	return nil
}

// injector makes the faults of one gateway; its random numbers are its own, so that
// a seed repeats them.
type injector struct {
	rand *rand.Rand
	held []byte // a message that waits for the next one
}

// publish sends a message, or what the faults make of it. It reports false when the
// connection did not take something.
func (i *injector) publish(f Faults, payload []byte, send func([]byte) bool) bool {
	if f.Silent {
		return true
	}
	ok := true
	if i.hit(f.Garbage) {
		junk := make([]byte, 1+i.rand.IntN(64))
		for n := range junk {
			junk[n] = byte(i.rand.Uint32())
		}
		ok = send(junk)
	}
	if i.hit(f.Lose) {
		return ok
	}
	if i.held == nil && i.hit(f.Reorder) {
		i.held = payload
		return ok
	}
	ok = send(payload) && ok
	if i.hit(f.Duplicate) {
		ok = send(payload) && ok
	}
	if i.held != nil {
		ok = send(i.held) && ok
		i.held = nil
	}
	return ok
}

func (i *injector) hit(probability float64) bool {
	return probability > 0 && i.rand.Float64() < probability
}
