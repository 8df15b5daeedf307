package car

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
)

// At the stop the gateway is told when everything else is done: it connects anew at
// once, and the server that takes over must be there (CLI-24, GW-40).
func TestGatewayIsToldLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *rig
		early, closed := false, false
		io := &fakeModule{number: 2, onCall: func(_ context.Context, call string) error {
			if call == "close" {
				closed = true
				r.link.set(func() { early = slices.Contains(r.link.sent, "disconnect") || r.link.closed })
			}
			return nil
		}}
		r = newRig(t, Options{}, io).run()
		r.connect(button)
		r.link.take()
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if !closed || early {
			t.Errorf("module closed %t, gateway told before that %t", closed, early)
		}
		r.wantSent("disconnect")
	})
}
