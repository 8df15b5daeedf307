package observe

import (
	"context"
	"fmt"
	"sync"
	"time"

	"external-server/internal/link"
	"external-server/internal/module"
)

// watchPause is how often Watch looks.
const watchPause = 500 * time.Millisecond

// slowPause is the shortest time between two events of slow calls of one module: a module
// may be slow all the time.
const slowPause = time.Minute

// Watch turns changes of the broker connection, of module processes and of places on
// disk into events, and keeps the history and the alerts, until ctx ends.
func (h *Hub) Watch(ctx context.Context) {
	var recording sync.WaitGroup
	defer recording.Wait()
	recording.Go(func() { h.recorder.record(ctx) })
	w := newWatcher(h)
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for {
		s := &h.sources
		if s.Link != nil {
			w.link(s.Link())
		}
		if s.Processes != nil {
			w.modules(s.Processes())
		}
		if s.Stores != nil {
			w.stores(s.Stores())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watcher remembers what it saw last.
type watcher struct {
	hub       *Hub
	up        bool
	refused   string            // topic
	faults    map[string]string // of places on disk, by name
	connects  uint64
	processes map[string]module.ProcessState
	slow      map[string]time.Time // when a slow call of a module was told last, by name
}

func newWatcher(h *Hub) *watcher {
	return &watcher{hub: h, faults: make(map[string]string), processes: make(map[string]module.ProcessState), slow: make(map[string]time.Time)}
}

func (w *watcher) link(s link.State) {
	var connects uint64
	for i := range s.Connections {
		connects += s.Connections[i].Connects
	}
	// More connects while it is up: it was lost and came back since we looked.
	blink := s.Up && w.up && connects > w.connects
	switch {
	case w.up && !s.Up || blink:
		if s.Refused == 0 || blink {
			w.hub.Events.Put(Event{Kind: KindLink, Reason: "lost", Text: s.LastError})
		}
	}
	if s.Refused > 0 && w.refused != s.RefusedTopic {
		w.hub.Events.Put(Event{Kind: KindLink, Reason: "subscription refused", Text: "the broker refuses the subscription to " + s.RefusedTopic, Count: s.Refused})
	}
	w.refused = s.RefusedTopic
	if s.Up && (!w.up || blink) {
		w.hub.Events.Put(Event{Kind: KindLink, Reason: "connected"})
	}
	w.up, w.connects = s.Up, connects
}

// stores tells that a place on disk cannot be written to, such as on a full disk, and that
// it can again.
func (w *watcher) stores(stores []Store) {
	for _, s := range stores {
		before := w.faults[s.Name]
		switch {
		case s.Fault != "" && before == "":
			w.hub.Events.Put(Event{Kind: KindFault, Reason: s.Name + " fails", Text: s.Fault, Count: 1})
		case s.Fault == "" && before != "":
			w.hub.Events.Put(Event{Kind: KindFault, Reason: s.Name + " works again", Count: 1})
		}
		w.faults[s.Name] = s.Fault
	}
}

func (w *watcher) modules(states []module.ProcessState) {
	seen := make(map[string]bool, len(states))
	for _, s := range states {
		seen[s.Name] = true
		old, known := w.processes[s.Name]
		ev := Event{Kind: KindModule, Module: s.Number, Text: s.Name}
		switch {
		case !known:
		case s.OutOfService && !old.OutOfService:
			ev.Reason, ev.Text = "out of service", fmt.Sprintf("%s: %s", s.Name, s.LastExit)
			w.hub.Events.Put(ev)
		case s.LastExitAt.After(old.LastExitAt):
			ev.Reason, ev.Text = "process ended", fmt.Sprintf("%s: %s", s.Name, s.LastExit)
			w.hub.Events.Put(ev)
			if s.Ready {
				w.hub.Events.Put(Event{Kind: KindModule, Module: s.Number, Reason: "process ready", Text: s.Name})
			}
		case s.Silent && !old.Silent:
			ev.Reason = "does not answer"
			w.hub.Events.Put(ev)
		case !s.Silent && old.Silent && s.Ready && old.Ready:
			ev.Reason = "answers again"
			w.hub.Events.Put(ev)
		case s.Ready && !old.Ready:
			ev.Reason = "process ready"
			w.hub.Events.Put(ev)
		}
		if now := time.Now(); s.Slow != "" && !s.Silent && now.Sub(w.slow[s.Name]) >= slowPause {
			w.slow[s.Name] = now
			ev.Reason, ev.Text = "slow call", fmt.Sprintf("%s: %s has not come back", s.Name, s.Slow)
			w.hub.Events.Put(ev)
		}
		w.processes[s.Name] = s
	}
	for name := range w.processes {
		if !seen[name] {
			delete(w.processes, name)
			delete(w.slow, name)
		}
	}
}
