package app

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A gateway that comes back in time is not reported; one that does not is, once, and
// other clients of the broker are not.
func TestGatewaysThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateways()
		g.ours.Store(true)
		ctx, cancel := context.WithCancel(t.Context())
		var gone []string
		begin, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			g.watch(ctx, func(client string, left time.Time) {
				gone = append(gone, fmt.Sprintf("%s left at %v, reported at %v", client, left.Sub(begin), time.Since(begin)))
			})
		}()
		for _, client := range []string{"acme/back", "acme/gone", "dashboard", "acme/Upper", "a/b/c"} {
			g.present(client, true)
			g.present(client, false)
		}
		time.Sleep(time.Second)
		g.present("acme/late", false)
		time.Sleep(3 * time.Second)
		g.present("acme/back", true)
		time.Sleep(time.Minute)
		cancel()
		<-ended
		if want := "[acme/gone left at 0s, reported at 5s acme/late left at 1s, reported at 6s]"; fmt.Sprint(gone) != want {
			t.Errorf("got %v\nwant %s", gone, want)
		}
	})
}

// When the server uses another broker, the embedded one says nothing about gateways.
func TestGatewaysOfAnotherBroker(t *testing.T) {
	g := newGateways()
	g.present("acme/car", false)
	if len(g.left) != 0 {
		t.Error("a client of another broker is taken for a gateway")
	}
}
