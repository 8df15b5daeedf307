package simulate

import (
	"strings"
	"testing"
	"time"
)

// The progress tells how far the run is and how long it goes on; before that, how
// many cars are connected.
func TestProgress(t *testing.T) {
	f := &Fleet{opts: Options{Cars: 50}}
	f.tally.everConnected.Store(25)
	start := time.Unix(1_000_000, 0)
	if got := f.progress(start, time.Minute); got != "[#####.....] connecting:" {
		t.Error(got)
	}
	f.tally.start.Store(start.UnixNano())
	for passed, want := range map[time.Duration]string{
		0:                "[..........]   0 %, 1m0s left:",
		24 * time.Second: "[####......]  40 %, 36s left:",
		time.Hour:        "[##########] 100 %, 0s left:",
	} {
		if got := f.progress(start.Add(passed), time.Minute); got != want {
			t.Errorf("after %v: %q, expected %q", passed, got, want)
		}
	}
	g := Figures{Cars: 100_000, Connected: 100_000, P50: time.Second, P99: time.Minute, Dropped: 1 << 30, Unserved: 7}
	line := cut(f.progress(start, time.Minute)+" "+g.line(1e6, true), 79)
	if len(line) != 79 || !strings.HasPrefix(line, "[") {
		t.Errorf("a line of %d characters: %s", len(line), line)
	}
}

// Statuses that were given are sent in turn by each device; longer ones than asked
// for stay as they are, and padding does not change what is said.
func TestStatuses(t *testing.T) {
	o := Options{Devices: 2, Statuses: [][]byte{[]byte("a"), []byte("b")}}
	s := o.newSource(0)
	var said string
	for _, device := range []int{0, 0, 1, 0, 1} {
		said += string(s.status(device, time.Time{}))
	}
	if said != "abaab" {
		t.Errorf("sent %s", said)
	}
	o = Options{Module: 1, Devices: 1, Payload: 2000}
	if got := o.newSource(0).status(0, time.Unix(1, 0)); len(got) != 2000 || !strings.HasSuffix(string(got), " }") {
		t.Errorf("a status of %d bytes: %.20s", len(got), got)
	}
	o = Options{Module: 2, Devices: 2}
	panel := o.newSource(0)
	panel.command(1, []byte(`[{"outNum":1,"actType":1}]`))
	if lit := string(panel.status(1, time.Time{})); !strings.Contains(lit, `"outSt":1`) {
		t.Errorf("the lamp is not on: %s", lit)
	}
	if dark := string(panel.status(0, time.Time{})); strings.Contains(dark, `"outSt":1`) {
		t.Errorf("the lamp of another device is on: %s", dark)
	}
}
