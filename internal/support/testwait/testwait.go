// Package testwait lets tests wait for what must happen. It imports nothing of the
// project and is imported by tests only.
package testwait

import (
	"testing"
	"time"
)

// Patience is how long tests wait for what must happen; it is not what anything is
// expected to take. A machine that is busy with other things needs a minute for what
// takes seconds: a thousand gateways that connect, with the race detector.
const Patience = 3 * time.Minute

// Until waits until the condition holds and ends the test if it does not within
// Patience; what names it. It must be called on the test's goroutine.
func Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %v: %s", Patience, what)
		}
		<-tick.C
	}
}

// Returns ends the test if do does not return within Patience: what it calls might wait for ever.
func Returns(t testing.TB, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(Patience):
		t.Fatalf("did not return within %v", Patience)
	}
}
