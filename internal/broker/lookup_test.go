package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/support/brokertest"
	"external-server/internal/support/testwait"
)

// A client that subscribes to thousands of wildcards while many messages are retained
// waits for its turn; exact topics cost nothing where there is no message.
func TestLookupsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lookups
		if wait := l.spend(freeLookups, time.Now()); wait != 0 {
			t.Errorf("what is free waits %v", wait)
		}
		if wait := l.spend(10*lookupsPerSecond, time.Now()); wait != 10*time.Second {
			t.Errorf("ten seconds of it wait %v", wait)
		}
		time.Sleep(20 * time.Second)
		if wait := l.spend(lookupsPerSecond, time.Now()); wait != 0 {
			t.Errorf("after a pause it waits %v", wait)
		}
	})
}

// What is retained arrives with every kind of subscription, once per filter.
func TestRetainedWithAnySubscription(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	p := dialInside(t, b)
	for _, topic := range []string{"r/1", "r/2", "other"} {
		if err := p.Retain(topic, []byte("kept")); err != nil {
			t.Fatal(err)
		}
	}
	for filters, want := range map[string]string{
		"r/1": "r/1", "none": "", "r/+": "r/1 r/2", "#": "other r/1 r/2", "r/1 none r/2": "r/1 r/2", "nothing/#": "",
	} {
		q := dialInside(t, b)
		if err := q.Subscribe(1, strings.Fields(filters)...); err != nil {
			t.Fatal(err)
		}
		if err := p.Retain("r/end", nil); err != nil { // nothing is retained by that
			t.Fatal(err)
		}
		if err := q.Subscribe(1, "end"); err != nil {
			t.Fatal(err)
		}
		if err := p.Publish("end", nil, false); err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			m, err := q.Receive(brokertest.Timeout)
			if err != nil {
				t.Fatal(err)
			}
			if m.Topic == "end" {
				break
			}
			if m.Topic != "r/end" {
				got = append(got, m.Topic)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: got %q, expected %q", filters, text, want)
		}
	}
}

// Thousands of exact topics, as the server's own link subscribes them, do not wait
// whatever is retained.
func TestExactTopicsAreNotPaced(t *testing.T) {
	b, _ := startInside(t, Options{}, nil)
	p := dialInside(t, b)
	for i := range maxRetained {
		if err := p.Retain(fmt.Sprintf("r/%d", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	q := dialInside(t, b)
	filters := make([]string, 5000) // more than what is free, if they cost anything
	for i := range filters {
		filters[i] = fmt.Sprintf("company/car_%d/module_gateway", i)
	}
	if err := q.Subscribe(1, filters...); err != nil {
		t.Fatal(err)
	}
	var spent float64
	testwait.Until(t, "the client is there", func() bool {
		b.listener.mu.Lock()
		defer b.listener.mu.Unlock()
		for c := range b.listener.conns {
			c.lookups.mu.Lock()
			spent += c.lookups.spent
			c.lookups.mu.Unlock()
		}
		return len(b.listener.conns) == 2
	})
	if spent != 0 {
		t.Errorf("they cost %.0f comparisons", spent)
	}
}
