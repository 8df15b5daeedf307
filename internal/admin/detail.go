package admin

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"

	"external-server/internal/fleet"
	"external-server/internal/observe"
	"external-server/internal/session"
)

// payloadJSON is the beginning of a payload, decoded as far as that goes.
type payloadJSON struct {
	Size      int    `json:"size"` // of the whole payload, bytes
	Truncated bool   `json:"truncated,omitempty"`
	Encoding  string `json:"encoding"` // json: Data is the value; text or hex: Data is a string
	Data      any    `json:"data"`
}

func payload(p observe.Payload) *payloadJSON {
	out := &payloadJSON{Size: p.Size, Truncated: p.Size > len(p.Data)}
	text := p.Data
	if out.Truncated { // the cut may go through a character
		for range utf8.UTFMax - 1 {
			if r, n := utf8.DecodeLastRune(text); r != utf8.RuneError || n != 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	switch {
	case !out.Truncated && len(p.Data) > 0 && json.Valid(p.Data) && utf8.Valid(p.Data): // json lets bytes that are no UTF-8 pass
		out.Encoding, out.Data = "json", json.RawMessage(p.Data)
	case printable(text):
		out.Encoding, out.Data = "text", string(text)
	default:
		out.Encoding, out.Data = "hex", hex.EncodeToString(p.Data)
	}
	return out
}

func printable(text []byte) bool {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 || !unicode.IsGraphic(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
		text = text[n:]
	}
	return true
}

// errorPayload is nil when there is none.
func errorPayload(p observe.Payload) *payloadJSON {
	if p.Size == 0 {
		return nil
	}
	return payload(p)
}

type deviceJSON struct {
	Module   int32  `json:"module"`
	Type     uint32 `json:"type"`
	Role     string `json:"role"`
	Name     string `json:"name"`
	Priority uint32 `json:"priority"`
}

func device(d fleet.Device) deviceJSON {
	return deviceJSON{Module: d.Module, Type: d.Type, Role: d.Role, Name: d.Name, Priority: d.Priority}
}

type deviceDetail struct {
	deviceJSON
	Connected   bool         `json:"connected"`
	Since       *time.Time   `json:"since,omitempty"`
	Statuses    uint64       `json:"statuses"`
	LastStatus  *statusJSON  `json:"last_status,omitempty"`
	Commands    uint64       `json:"commands"`
	LastCommand *commandJSON `json:"last_command,omitempty"`
}

type statusJSON struct {
	At      time.Time    `json:"at"`
	Counter uint32       `json:"counter"`
	State   string       `json:"state"`
	Payload *payloadJSON `json:"payload"`
	Error   *payloadJSON `json:"error,omitempty"`
}

type commandJSON struct {
	Device   deviceJSON   `json:"device"`
	Module   int32        `json:"module"`
	State    string       `json:"state"` // accepted, queued, sent, acknowledged, refused, expired, lost, discarded, deleted
	Counter  *uint32      `json:"counter,omitempty"`
	Response string       `json:"response,omitempty"`
	Queued   *time.Time   `json:"queued,omitempty"` // when the module had it; none: not yet
	Sent     *time.Time   `json:"sent,omitempty"`
	Ended    *time.Time   `json:"ended,omitempty"`
	Payload  *payloadJSON `json:"payload"`
	// Of a command that an operator has sent from here.
	Order    uint64     `json:"order,omitempty"`
	By       string     `json:"by,omitempty"`
	Accepted *time.Time `json:"accepted,omitempty"` // by the HTTP API
}

func command(c observe.Command) *commandJSON {
	out := &commandJSON{
		Device: device(c.Device), Module: c.Module, State: string(c.State), Queued: when(c.Fetched), Sent: when(c.Sent), Ended: when(c.Ended), Payload: payload(c.Payload),
	}
	if o := c.Order; o != nil {
		out.Order, out.By, out.Accepted = o.Number, o.By, when(o.At)
	}
	if !c.Sent.IsZero() {
		out.Counter = &c.Counter
	}
	if c.State == observe.CommandAnswered || c.State == observe.CommandRefused {
		out.Response = c.Response.String()
	}
	return out
}

type carModule struct {
	Number            int32   `json:"number"`
	Queued            int     `json:"queued"`
	OldestSeconds     float64 `json:"oldest_seconds"`
	Statuses          uint64  `json:"statuses"`
	Errors            uint64  `json:"errors"`
	Lost              uint64  `json:"lost"`
	CommandsFetched   uint64  `json:"commands_fetched"`
	CommandsDiscarded uint64  `json:"commands_discarded"`
}

// carDetail is the answer of /api/v1/cars/{car}.
type carDetail struct {
	carBrief
	Company   string                    `json:"company"`
	LinkUp    bool                      `json:"link_up"`
	Phase     string                    `json:"phase"`
	Devices   []deviceDetail            `json:"devices"`
	Modules   []carModule               `json:"modules"`
	Sessions  []*endJSON                `json:"session_ends"` // newest first
	EndsBy    map[session.Reason]uint64 `json:"ends_by_reason"`
	Commands  []*commandJSON            `json:"recent_commands"` // newest first
	Drops     map[string]uint64         `json:"drops"`
	Completed uint64                    `json:"sessions"`
}

func (s *Server) car(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("car")
	c, ok := s.opts.Source.Car(name)
	if !ok {
		fail(w, http.StatusNotFound, "car "+name+" is not served")
		return
	}
	link := s.opts.Source.Link()
	now := time.Now()
	out := carDetail{
		carBrief: s.brief(&c, &link), Company: c.ID.Company, LinkUp: c.LinkUp, Phase: c.Phase.String(),
		EndsBy: c.Ended, Devices: []deviceDetail{}, Modules: []carModule{}, Sessions: []*endJSON{}, Commands: []*commandJSON{},
		Drops: map[string]uint64{}, Completed: c.Sessions,
	}
	for _, m := range c.Modules {
		out.Modules = append(out.Modules, carModule{
			Number: m.Number, Queued: m.Queued, OldestSeconds: seconds(now, m.OldestQueued), Statuses: m.Statuses, Errors: m.Errors,
			Lost: m.Lost, CommandsFetched: m.CommandsFetched, CommandsDiscarded: m.CommandsDiscarded,
		})
	}
	if o, ok := s.opts.Hub.Find(name); ok {
		v := o.View()
		for _, d := range v.Devices {
			out.Devices = append(out.Devices, deviceOf(d))
		}
		for _, e := range v.Ends {
			out.Sessions = append(out.Sessions, endOf(e))
		}
		for _, c := range v.Commands {
			out.Commands = append(out.Commands, command(c))
		}
		if v.Drops != nil {
			out.Drops = v.Drops
		}
	}
	answer(w, http.StatusOK, out)
}

func deviceOf(d observe.Device) deviceDetail {
	out := deviceDetail{deviceJSON: device(d.Device), Connected: d.Connected, Since: when(d.Since), Statuses: d.Statuses, Commands: d.Commands}
	if !d.Status.At.IsZero() {
		out.LastStatus = &statusJSON{
			At: d.Status.At, Counter: d.Status.Counter, State: d.Status.State.String(), Payload: payload(d.Status.Payload), Error: errorPayload(d.Status.Error),
		}
	}
	if !d.LastCommand.Fetched.IsZero() {
		out.LastCommand = command(d.LastCommand)
	}
	return out
}

func seconds(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since).Seconds())
}
