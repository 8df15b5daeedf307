package observe

import (
	"testing"

	"external-server/internal/module"
)

// A silent process and a failing store are events once each, and so is their return.
func TestSilenceAndFullDiskAreEvents(t *testing.T) {
	h, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := watcher{hub: h, processes: make(map[string]module.ProcessState)}
	p := module.ProcessState{Number: 7, Name: "lib.so", Ready: true}
	for _, silent := range []string{"", "the answer to a ping", "the answer to a ping", ""} {
		p.Silent = silent
		w.modules([]module.ProcessState{p})
	}
	for _, fault := range []string{"", "full", "full", ""} {
		w.store(fault)
	}
	events, _, _ := h.Events.Read(h.Events.Oldest(), 100, nil)
	var got []string
	for _, ev := range events {
		got = append(got, ev.Kind+": "+ev.Reason)
	}
	want := []string{"module: does not answer", "module: answers again", "fault: message store: full", "fault: message store works again"}
	if len(got) != len(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}
