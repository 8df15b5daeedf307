package module

import (
	"fmt"
	"testing"

	"external-server/internal/fleet"
)

// The ring keeps order over growth and wrap-around, and does not keep the memory
// of a burst.
func TestRing(t *testing.T) {
	q := newJobs(10_000, 1<<20)
	next, put := 0, 0
	take := func() {
		j, ok := q.begin()
		if !ok || string(j.data) != fmt.Sprint(next) {
			t.Fatalf("took %q, %v, want %d", j.data, ok, next)
		}
		if !q.end() {
			t.Fatal("the job was abandoned")
		}
		next++
	}
	for round := range 200 {
		for range round % 90 {
			q.put(job{kind: jobStatus, data: status(put)})
			put++
		}
		for range min(round%70, put-next) {
			take()
		}
	}
	for next < put {
		take()
	}
	if _, ok := q.begin(); ok || q.statuses != 0 || q.bytes != 0 {
		t.Errorf("left: %d statuses, %d bytes", q.statuses, q.bytes)
	}
	if len(q.ring) > maxIdleRing {
		t.Errorf("an empty queue keeps room for %d jobs", len(q.ring))
	}
}

// Only a connect that still waits, of the very device and with nothing of it
// behind, is withdrawn; what is left keeps its order, also around the ring's end.
func TestWithdraw(t *testing.T) {
	q := newJobs(100, 1<<20)
	other := fleet.Device{Module: 7, Type: 1, Role: "other"}
	renamed := button
	renamed.Name = "renamed"
	connect := func(d fleet.Device) { q.put(job{kind: jobConnected, device: d}) }
	gone := func(d fleet.Device) { q.put(job{kind: jobDisconnected, device: d}) }
	var want []job
	for range 3 {
		connect(button) // withdrawn
		connect(other)
		gone(button)
		q.put(job{kind: jobStatus, device: button})
		gone(button)
		connect(button)
		q.put(job{kind: jobAck, device: button})
		gone(button)
		connect(button)
		gone(renamed)
		connect(other) // withdrawn
		gone(other)
		want = append(want, job{kind: jobConnected, device: other}, job{kind: jobStatus, device: button},
			job{kind: jobDisconnected, device: button}, job{kind: jobConnected, device: button}, job{kind: jobAck, device: button},
			job{kind: jobDisconnected, device: button}, job{kind: jobConnected, device: button}, job{kind: jobDisconnected, device: renamed})
		for len(want) > 3 {
			j, _ := q.begin()
			if q.end(); j.kind != want[0].kind || j.device != want[0].device {
				t.Fatalf("kind %d of %v, want kind %d of %v", j.kind, j.device, want[0].kind, want[0].device)
			}
			want = want[1:]
		}
	}
	if q.connects != 1 || q.n != len(want) {
		t.Errorf("%d connects among %d jobs wait, want 1 among %d", q.connects, q.n, len(want))
	}
}
