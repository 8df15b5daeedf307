package observe

import (
	"slices"
	"testing"

	"external-server/internal/module"
)

// A silent process and a failing store are events once each, and so is their return. A
// slow call is one at most once a minute.
func TestSilenceAndFullDiskAreEvents(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := newWatcher(h)
	p := module.ProcessState{Number: 7, Name: "lib.so", Ready: true}
	for _, silent := range []bool{false, true, true, false} {
		p.Silent = silent
		w.modules([]module.ProcessState{p})
	}
	for _, slow := range []string{"forward_status for car a", "forward_status for car a", "", "init for car b", ""} {
		p.Slow = slow
		w.modules([]module.ProcessState{p})
	}
	for _, fault := range []string{"", "no space left on device", "no space left on device", ""} {
		w.stores([]Store{{Name: "log file"}, {Name: "spool", Fault: fault}})
	}
	events, _, _ := h.Events.Read(h.Events.Oldest(), 100, nil)
	var got []string
	for _, ev := range events {
		got = append(got, ev.Kind+": "+ev.Reason+": "+ev.Text)
	}
	want := []string{
		"module: does not answer: lib.so", "module: answers again: lib.so",
		"module: slow call: lib.so: forward_status for car a has not come back",
		"fault: spool fails: no space left on device", "fault: spool works again: ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
