package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/observe"
	"external-server/internal/peer"
)

// batch is how many entries of a stream are written before they are flushed.
const batch = 256

// stream is one server-sent event stream.
type stream struct {
	s       *Server
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context
}

// begin answers with a stream, or with 503 when there are too many. The caller
// must call end when it is not nil.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (st *stream, end func()) {
	select {
	case s.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open, which is the limit", maxStreams))
		return nil, nil
	}
	if release, ok := r.Context().Value(releaseKey{}).(func()); ok {
		release()
	}
	ctx, cancel := context.WithCancel(r.Context())
	go func() { // ends with end
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	st = &stream{s: s, w: w, control: http.NewResponseController(w), ctx: ctx}
	_ = st.control.SetReadDeadline(time.Time{}) // the request was read; the stream lasts
	return st, func() { cancel(); <-s.streams }
}

// send writes entries and flushes; a reader that does not read is dropped by the
// deadline.
func (st *stream) send(text []byte) error {
	if err := st.control.SetWriteDeadline(time.Now().Add(st.s.opts.StreamTimeout)); err != nil {
		return err
	}
	if _, err := st.w.Write(text); err != nil {
		return err
	}
	return st.control.Flush()
}

// wait waits for more, sending heartbeats meanwhile. It reports false when the
// stream must end.
func (st *stream) wait(more <-chan struct{}) bool {
	beat := time.NewTicker(st.s.opts.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-more:
			return true
		case <-st.ctx.Done():
			return false
		case <-beat.C:
			if st.send([]byte(":\n\n")) != nil {
				return false
			}
		}
	}
}

// entry appends one event of a stream.
func entry(to []byte, kind, id string, data any) []byte {
	raw, err := json.Marshal(data)
	if err != nil { // only values of ours come here
		raw = []byte(strconv.Quote(err.Error()))
	}
	if id != "" {
		to = append(to, "id: "+id+"\n"...)
	}
	to = append(to, "event: "+kind+"\ndata: "...)
	to = append(to, raw...)
	return append(to, "\n\n"...)
}

// gap says that entries are missing.
type gap struct {
	Lost   uint64 `json:"lost"` // 0: unknown
	Reason string `json:"reason"`
	// Replica is where they are missing, in the stream of a cluster.
	Replica string `json:"replica,omitempty"`
}

// events streams what happens. Last-Event-ID, or the parameter after, resumes;
// after=0 begins with the oldest event there is.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = r.URL.Query().Get("after")
	}
	only := r.URL.Query().Get("car")
	replica := ""
	if s.opts.Cluster != nil {
		if view := s.opts.Cluster.View(); view != nil {
			if _, from := peer.FromRequest(r); !from {
				s.fleetEvents(w, r, after, only)
				return
			}
			replica = view.Self
		}
	}
	st, end := s.begin(w, r)
	if st == nil {
		return
	}
	defer end()
	events := s.opts.Hub.Events
	from, known := events.Oldest(), true
	if after != "0" {
		from, known = events.After(after)
	}
	text := []byte("retry: 2000\n\n")
	if !known {
		from = events.Oldest()
		text = entry(text, "gap", "", gap{Reason: "the server was started anew or the id is none of its; what is known follows", Replica: replica})
	}
	var read []observe.Event
	for first := true; ; first = false {
		var lost uint64
		read, from, lost = events.Read(from, batch, read[:0])
		if lost > 0 {
			text = entry(text, "gap", "", gap{Lost: lost, Reason: "events came faster than they were read, or were too long ago", Replica: replica})
			if !first { // a reader that is too slow is not waited for; it may resume
				_ = st.send(text)
				return
			}
		}
		for _, ev := range read {
			if only == "" || ev.Car == only {
				ev.Replica = replica
				text = entry(text, ev.Kind, ev.ID, ev)
			}
		}
		if len(text) > 0 && st.send(text) != nil {
			return
		}
		text = text[:0]
		if !st.wait(events.Wait(from)) {
			return
		}
	}
}

// messageJSON is one entry of the live tail.
type messageJSON struct {
	At        time.Time    `json:"at"`
	Direction string       `json:"direction"` // in: of the gateway, out: to it
	Kind      string       `json:"kind"`
	Session   string       `json:"session"`
	Counter   *uint32      `json:"counter,omitempty"`
	Device    *deviceJSON  `json:"device,omitempty"`
	Devices   []deviceJSON `json:"devices,omitempty"` // connect
	State     string       `json:"state,omitempty"`   // status
	Response  string       `json:"response,omitempty"`
	Duplicate bool         `json:"duplicate,omitempty"`
	Refused   bool         `json:"refused,omitempty"`
	Payload   *payloadJSON `json:"payload,omitempty"`
	Error     *payloadJSON `json:"error,omitempty"`
}

func messageOf(m *observe.Message) messageJSON {
	out := messageJSON{At: m.At, Direction: "in", Kind: m.Kind, Session: m.Session, Duplicate: m.Duplicate, Refused: m.Refused}
	if m.Out {
		out.Direction = "out"
	}
	if !strings.HasPrefix(m.Kind, "connect") {
		out.Counter = &m.Counter
	}
	for _, d := range m.Devices {
		out.Devices = append(out.Devices, device(d))
	}
	switch m.Kind {
	case fleet.ClientStatus.String(), "command":
		d := device(m.Device)
		out.Device, out.Payload, out.Error = &d, payload(m.Payload), errorPayload(m.Error)
	}
	switch m.Kind {
	case fleet.ClientStatus.String():
		out.State = m.State.String()
	case fleet.ClientCommandResponse.String():
		out.Response = m.Response.String()
	}
	return out
}

// messages streams the messages of a car from now on.
func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	c, ok := s.opts.Hub.Find(name)
	if !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	st, end := s.begin(w, r)
	if st == nil {
		return
	}
	defer end()
	ring, stop := c.Watch()
	defer stop()
	from := ring.Next()
	if st.send([]byte("retry: 2000\n\n")) != nil {
		return
	}
	var read []observe.Message
	var text []byte
	for st.wait(ring.Wait(from)) {
		var lost uint64
		read, from, lost = ring.Read(from, batch, read[:0])
		text = text[:0]
		if lost > 0 {
			text = entry(text, "gap", "", gap{Lost: lost, Reason: "messages came faster than they were read"})
		}
		for i := range read {
			text = entry(text, "message", "", messageOf(&read[i]))
		}
		if st.send(text) != nil {
			return
		}
	}
}
