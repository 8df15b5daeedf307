package console

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

// SniffOptions say what to listen to and how to print it.
type SniffOptions struct {
	Address            string // host:port
	TLS                *tls.Config
	Username, Password string
	Company            string
	Car                string   // empty: all cars of the company
	Kinds              []string // of messages; empty: all
	Device             string   // part of module/type/role/name; empty: all
	Count              int      // ends after so many lines; 0: never
	JSON, Colours      bool
}

// SniffKinds are the kinds of messages.
var SniffKinds = []string{"connect", "connectResponse", "status", "statusResponse", "command", "commandResponse", "disconnect", "empty", "unreadable"}

// Sniffed is one message of the traffic.
type Sniffed struct {
	At        time.Time       `json:"at"`
	Car       string          `json:"car"`
	Direction string          `json:"direction"` // in: to the server, out: to the gateway
	Kind      string          `json:"kind"`
	Session   string          `json:"session,omitempty"`
	Counter   *uint32         `json:"counter,omitempty"`
	Device    string          `json:"device,omitempty"`
	Devices   []string        `json:"devices,omitempty"`
	State     string          `json:"state,omitempty"`
	Response  string          `json:"response,omitempty"`
	Payload   json.RawMessage `json:"payload,omitempty"` // JSON, or a string: text or 0x…
	Error     json.RawMessage `json:"error,omitempty"`
	Bytes     int             `json:"bytes"`
	Retained  bool            `json:"retained,omitempty"`
}

// Decode reads one message of the topics of a car (CONN-1 to CONN-3). It reports
// false for other topics.
func Decode(topic string, raw []byte) (Sniffed, bool) {
	parts := strings.Split(topic, "/")
	if len(parts) != 3 {
		return Sniffed{}, false
	}
	out := Sniffed{Car: parts[1], Bytes: len(raw)}
	switch "/" + parts[2] {
	case fleet.TopicFromGateway:
		out.Direction = "in"
		out.client(raw)
	case fleet.TopicFromServer:
		out.Direction = "out"
		out.server(raw)
	case fleet.TopicDisconnect:
		out.Direction, out.Kind = "out", "disconnect"
	default:
		return out, false
	}
	return out, true
}

func (s *Sniffed) unreadable(err error, raw []byte) {
	s.Kind, s.Error, s.Payload = "unreadable", text(err.Error()), decodePayload(raw)
}

func (s *Sniffed) client(raw []byte) {
	m, err := protocol.DecodeClient(raw)
	if err != nil {
		s.unreadable(err, raw)
		return
	}
	s.Kind, s.Session = m.Kind.String(), m.SessionID
	switch m.Kind {
	case fleet.ClientConnect:
		for _, d := range m.Devices {
			s.Devices = append(s.Devices, d.String())
		}
	case fleet.ClientStatus:
		s.Counter, s.Device, s.State, s.Payload = &m.Counter, m.Device.String(), m.State.String(), decodePayload(m.Data)
		if len(m.Error) > 0 {
			s.Error = decodePayload(m.Error)
		}
	case fleet.ClientCommandResponse:
		s.Counter, s.Response = &m.Counter, m.Response.String()
	}
}

func (s *Sniffed) server(raw []byte) {
	m, err := protocol.DecodeServer(raw)
	if err != nil {
		s.unreadable(err, raw)
		return
	}
	s.Session, s.Kind = m.SessionID, "empty"
	switch m.Kind {
	case fleet.ServerConnectResponse:
		s.Kind, s.Response = "connectResponse", "OK"
		if m.AlreadyLogged {
			s.Response = "ALREADY_LOGGED"
		}
	case fleet.ServerStatusResponse:
		s.Kind, s.Counter = "statusResponse", &m.Counter
	case fleet.ServerCommand:
		s.Kind, s.Counter, s.Device, s.Payload = "command", &m.Counter, m.Device.String(), decodePayload(m.Data)
	}
}

func text(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil { // strings always can
		return nil
	}
	return raw
}

// decodePayload returns JSON as it is and anything else as a string.
func decodePayload(data []byte) json.RawMessage {
	switch {
	case len(data) == 0:
		return text("")
	case json.Valid(data):
		return data
	case utf8.Valid(data):
		return text(string(data))
	}
	return text("0x" + hex.EncodeToString(data))
}

// Line is the message for people.
func (s *Sniffed) Line(colours bool) string {
	arrow, colour := "→ server ", blue
	if s.Direction == "out" {
		arrow, colour = "→ gateway", green
	}
	if s.Kind == "unreadable" || s.Kind == "disconnect" {
		colour = red
	}
	parts := []string{s.At.Local().Format("15:04:05.000"), Clean(s.Car), paint(colours, colour, arrow+" "+fmt.Sprintf("%-15s", s.Kind))}
	add := func(v string) {
		if v != "" {
			parts = append(parts, Clean(v))
		}
	}
	if s.Counter != nil {
		add(fmt.Sprintf("#%d", *s.Counter))
	}
	add(s.Session)
	add(s.State)
	add(s.Response)
	add(briefDevice(s.Device))
	devices := make([]string, len(s.Devices))
	for i, d := range s.Devices {
		devices[i] = briefDevice(d)
	}
	add(strings.Join(devices, " "))
	add(string(s.Payload))
	if s.Error != nil {
		add("error: " + string(s.Error))
	}
	switch {
	case s.Retained && s.Kind == "disconnect":
		add("RETAINED: it locks the car out; remove it from the broker")
	case s.Retained:
		add("RETAINED")
	}
	return strings.Join(parts, "  ")
}

func (o *SniffOptions) wants(s *Sniffed) bool {
	return (len(o.Kinds) == 0 || slices.Contains(o.Kinds, s.Kind)) &&
		(o.Device == "" || strings.Contains(s.Device, o.Device) || slices.ContainsFunc(s.Devices, func(d string) bool { return strings.Contains(d, o.Device) }))
}

// Sniff prints the traffic of cars until ctx ends. It subscribes with QoS 0 on a
// clean session and publishes nothing, so neither the broker nor any client
// keeps or notices anything. It reconnects by itself once the first attempt has
// succeeded.
func Sniff(ctx context.Context, o SniffOptions, out, notes io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &sniffer{opts: &o, messages: make(chan Sniffed, 1024), news: make(chan error, 1), subscribed: make(chan struct{}, 1)}
	var running sync.WaitGroup
	ended := make(chan error, 1)
	running.Go(func() { ended <- s.run(ctx) })
	defer running.Wait()
	defer cancel()
	for n := 0; ; {
		select {
		case err := <-ended:
			return err
		case err := <-s.news:
			fmt.Fprintf(notes, "connection to the broker lost, connecting anew: %v\n", err)
		case <-s.subscribed:
			fmt.Fprintf(notes, "listening to %s/%s at %s\n", o.Company, o.car(), o.Address)
		case m := <-s.messages:
			if err := o.print(&m, out); err != nil {
				return err
			}
			if n++; o.Count > 0 && n >= o.Count {
				return nil
			}
		}
	}
}

func (o *SniffOptions) print(s *Sniffed, out io.Writer) error {
	if !o.JSON {
		_, err := fmt.Fprintln(out, s.Line(o.Colours))
		return err
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = out.Write(append(CleanJSON(raw), '\n'))
	return err
}
