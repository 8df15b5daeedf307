package broker

import (
	"fmt"
	"testing"
)

// A subscription is never refused because of its packet identifier, although the library
// uses the same for a message that it sends at that moment.
func TestIdentifierOfASubscription(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	p, q := dialInside(t, b), dialInside(t, b)
	if err := q.Subscribe(1, "busy"); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("busy", nil, false); err != nil { // from here on both count alike
		t.Fatal(err)
	}
	for n := range 3000 {
		sent := make(chan error, 1)
		go func() { sent <- p.Publish("busy", nil, false) }()
		if err := q.Subscribe(1, fmt.Sprintf("topic/%d", n)); err != nil {
			t.Fatalf("subscription %d: %v", n, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}
