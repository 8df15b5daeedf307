package topics

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/fleet"
)

// Whatever the topic, it names a car only if the topic of that car is the very same
// one (CONN-2): no message reaches another car's room.
func FuzzTopic(f *testing.F) {
	for _, s := range []string{"acme/car/module_gateway", "acme/car/external_server", "/acme/car/module_gateway", "acme//module_gateway", "//module_gateway",
		"acme/car/x/module_gateway", "acme/car/module_gateway/module_gateway", "module_gateway", "", "acme/../car/module_gateway", "acme/c\x00r/module_gateway", "acme/+/module_gateway"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		company, name, ok := Split([]byte(topic))
		if !ok || !Valid(string(name)) {
			return
		}
		id := fleet.CarID{Company: string(company), Car: string(name)}
		if id.String()+"/module_gateway" != topic || strings.Contains(id.Car, "/") {
			t.Errorf("topic %q is taken for one of car %v", topic, id)
		}
	})
}

func TestBatches(t *testing.T) {
	for n, want := range map[int][]int{0: nil, 1: {1}, 200: {200}, 201: {200, 1}, 450: {200, 200, 50}} {
		var got []int
		next := 0
		for _, batch := range Batches(numbers(n)) {
			got = append(got, len(batch))
			if batch[0] != next || cap(batch) < len(batch) {
				t.Errorf("%d topics: a batch begins with %d, expected %d", n, batch[0], next)
			}
			next += len(batch)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d topics: batches of %v, expected %v", n, got, want)
		}
	}
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// Second copies are recognised by topic and content while both bring messages, and 2 s longer,
// because a broker may have queued them.
func TestOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOverlap()
		message := func(topic, payload string, repeated bool) {
			t.Helper()
			if o.Repeated([]byte(topic), []byte(payload)) != repeated {
				t.Errorf("%s %s: expected repeated %v", topic, payload, repeated)
			}
		}
		message("a", "1", false)
		message("b", "1", false)
		message("a", "1", true)
		message("a", "1", false) // said again
		message("ab", "1", false)
		message("a", "b1", false)
		if time.Sleep(time.Hour); o.Over() || o.Ends() {
			t.Error("over before its end")
		}
		message("b", "1", true)
		o.End()
		message("a", "2", false)
		time.Sleep(overlapAfter - time.Millisecond)
		if !o.Ends() || o.Over() {
			t.Error("over at once")
		}
		message("a", "2", true)
		message("a", "3", false)
		if time.Sleep(2 * time.Millisecond); !o.Over() {
			t.Error("not over")
		}
		message("a", "4", false)
		message("a", "4", false) // nothing is remembered any more
	})
}

// Others decide how many different messages come: what is remembered of them is bounded.
func TestOverlapIsBounded(t *testing.T) {
	o := NewOverlap()
	for i := range maxOverlap + 10 {
		o.Repeated([]byte("a"), []byte(strconv.Itoa(i)))
	}
	if len(o.seen) != maxOverlap {
		t.Errorf("%d messages remembered, expected %d", len(o.seen), maxOverlap)
	}
	if !o.Repeated([]byte("a"), []byte("0")) {
		t.Error("the first is forgotten")
	}
}
