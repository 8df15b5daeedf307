package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"external-server/internal/cluster"
	"external-server/internal/observe"
	"external-server/internal/peer"
)

// Bounds of the stream of all replicas' events.
const (
	followPause  = time.Second // between two attempts to follow a replica, and two looks for new ones
	maxFollowed  = 64          // replicas
	maxEntryLine = 1 << 20     // bytes of a line of another replica's stream
)

// happened is an entry of one replica's event stream on its way into that of all.
type happened struct {
	replica  string
	id, kind string // id "": of no event
	data     json.RawMessage
}

// positions in the streams of replicas, by name. As text, an id of the stream of all, they
// are NAME=ID,NAME=ID.
type cursors map[string]string

func (c cursors) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		parts = append(parts, name+"="+c[name])
	}
	return strings.Join(parts, ",")
}

// parseCursors reads a position; an id without name is that of self, as a replica's own
// stream has them.
func parseCursors(text, self string) cursors {
	out := cursors{}
	for part := range strings.SplitSeq(text, ",") {
		name, id, named := strings.Cut(part, "=")
		switch {
		case part == "" || len(out) >= maxFollowed:
		case !named:
			out[self] = part
		default:
			out[name] = id
		}
	}
	return out
}

// fleetEvents streams what happens at all replicas. The order between two of them is that
// in which it comes here.
func (s *Server) fleetEvents(w http.ResponseWriter, r *http.Request, after, only string) {
	st, end := s.begin(w, r)
	if st == nil {
		return
	}
	defer end()
	self := s.opts.Cluster.View().Self
	at := cursors{}
	all := after == "0"
	if !all {
		at = parseCursors(after, self)
	}
	known := len(at) > 0
	ctx, cancel := context.WithCancel(st.ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	entries := make(chan happened)
	// from is where to begin with a replica: after what is known of it; without that, with
	// everything when the reader wants it or has missed the replica's beginning.
	from := func(name string) string {
		if id, ok := at[name]; ok {
			return id
		}
		if all || known {
			return "0"
		}
		return ""
	}
	first := from(self)
	following.Go(func() { s.followSelf(ctx, self, first, only, entries) })
	followed := map[string]bool{}
	begin := true
	look := func() {
		for _, m := range s.others(r) {
			if followed[m.Name] || len(followed) >= maxFollowed {
				continue
			}
			followed[m.Name] = true
			first := from(m.Name)
			if !begin && first == "" {
				first = "0" // it joined while the stream was open: all of it is new
			}
			following.Go(func() { s.followOther(ctx, r, m.Name, first, only, entries) })
		}
		begin = false
	}
	look()
	if st.send([]byte("retry: 2000\n\n")) != nil {
		return
	}
	again := time.NewTicker(followPause)
	defer again.Stop()
	beat := time.NewTicker(s.opts.Heartbeat)
	defer beat.Stop()
	for {
		var text []byte
		select {
		case ev := <-entries:
			id := ""
			if ev.id != "" {
				at[ev.replica] = ev.id
				id = at.String()
			}
			text = entry(nil, ev.kind, id, ev.data)
		case <-again.C:
			look()
			continue
		case <-beat.C:
			text = []byte(":\n\n")
		case <-ctx.Done():
			return
		}
		if st.send(text) != nil {
			return
		}
	}
}

// followSelf gives the events of this replica to entries until ctx ends.
func (s *Server) followSelf(ctx context.Context, self, after, only string, entries chan<- happened) {
	give := func(kind, id string, data any) bool {
		raw, err := json.Marshal(data)
		if err != nil {
			return true // only values of ours come here
		}
		select {
		case entries <- happened{self, id, kind, raw}:
			return true
		case <-ctx.Done():
			return false
		}
	}
	events := s.opts.Hub.Events
	from, known := events.Oldest(), true
	if after != "0" {
		from, known = events.After(after)
	}
	if !known {
		from = events.Oldest()
		if !give("gap", "", gap{Reason: "the replica " + self + " was started anew or the id is none of its; what is known follows", Replica: self}) {
			return
		}
	}
	var read []observe.Event
	for {
		var lost uint64
		read, from, lost = events.Read(from, batch, read[:0])
		if lost > 0 && !give("gap", "", gap{Lost: lost, Reason: "events came faster than they were read, or were too long ago", Replica: self}) {
			return
		}
		for _, ev := range read {
			ev.Replica = self
			if (only == "" || ev.Car == only) && !give(ev.Kind, ev.ID, ev) {
				return
			}
		}
		select {
		case <-events.Wait(from):
		case <-ctx.Done():
			return
		}
	}
}

// followOther gives the events of another replica to entries until ctx ends, wherever the
// replica is by then. That it is out of reach is told by /api/v1/server.
func (s *Server) followOther(ctx context.Context, r *http.Request, name, after, only string, entries chan<- happened) {
	for ctx.Err() == nil {
		for _, m := range s.others(r) {
			if m.Name == name {
				s.readOther(ctx, r, m, &after, only, entries)
			}
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
		}
	}
}

func (s *Server) readOther(ctx context.Context, r *http.Request, m cluster.Member, after *string, only string, entries chan<- happened) {
	query := url.Values{}
	if only != "" {
		query.Set("car", only)
	}
	if *after != "" {
		query.Set("after", *after)
	}
	out, err := s.forOther(ctx, r, http.MethodGet, "/api/v1/events", query, nil)
	if err != nil {
		return
	}
	out.Header.Del("Last-Event-ID")
	answer, err := s.opts.Cluster.Ask(peer.For(ctx, m.Name), m.Address, out)
	if err != nil {
		return
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return
	}
	_ = readEntries(answer.Body, func(id, kind string, data []byte) bool {
		if id != "" {
			*after = id
		}
		select {
		case entries <- happened{m.Name, id, kind, data}:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// readEntries reads another replica's stream until it ends or each returns false.
func readEntries(from io.Reader, each func(id, kind string, data []byte) bool) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxEntryLine)
	var id, kind string
	var data []byte
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			data = []byte(value)
		case "":
			if kind != "" && json.Valid(data) && !each(id, kind, data) {
				return nil
			}
			id, kind, data = "", "", nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	return nil
}
