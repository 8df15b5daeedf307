package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/observe"
	"external-server/internal/peer"
	"external-server/internal/session"
)

// Paging of the list of cars.
const (
	defaultLimit = 100
	maxLimit     = 10_000
	maxPeerLimit = 1 << 20 // cars of one replica that another one asks for
)

// carBrief is a car in the list, light enough for ten thousand of them.
type carBrief struct {
	Name     string     `json:"name"`
	State    string     `json:"state"` // waiting, connecting, running
	Since    *time.Time `json:"since,omitempty"`
	Session  string     `json:"session,omitempty"`
	Resumed  *time.Time `json:"resumed,omitempty"` // when the session went on after a restart or loss
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Devices  int        `json:"devices"`
	Statuses uint64     `json:"statuses"`
	Sessions uint64     `json:"sessions"`
	Ends     uint64     `json:"ends"`
	// Why the car is not connected, or is not served well; for people.
	Why     string   `json:"why,omitempty"`
	LastEnd *endJSON `json:"last_end,omitempty"`
	// In a cluster: the replica that serves the car, the car's shard and its owner's epoch.
	Replica string `json:"replica,omitempty"`
	Shard   *int   `json:"shard,omitempty"`
	Epoch   int64  `json:"epoch,omitempty"`
}

type endJSON struct {
	At          time.Time `json:"at"`
	Reason      string    `json:"reason"`
	Session     string    `json:"session,omitempty"`
	Established bool      `json:"established"`
	Seconds     float64   `json:"seconds"`
	Unanswered  int       `json:"unanswered_commands,omitempty"`
}

func endOf(e observe.End) *endJSON {
	return &endJSON{At: e.At, Reason: e.Reason, Session: e.Session, Established: e.Established, Seconds: e.Lasted.Seconds(), Unanswered: e.Unanswered}
}

func (s *Server) brief(c *car.Snapshot, link *link.State) carBrief {
	b := carBrief{
		Name: c.ID.Car, State: observe.StateOf(c.Phase), Since: when(c.Since), Session: c.SessionID, Resumed: when(c.Resumed), LastSeen: when(c.LastSeen),
		Devices: len(c.Devices), Statuses: c.Statuses, Sessions: c.Sessions,
	}
	for _, n := range c.Ended {
		b.Ends += n
	}
	if o, ok := s.opts.Hub.Find(c.ID.Car); ok {
		if end, ok := o.LastEnd(); ok {
			b.LastEnd = endOf(end)
		}
	}
	b.Why = why(c, link, b.LastEnd)
	s.place(&b)
	return b
}

// contendedFor is how long a warning of two gateways or servers is shown; as long as that
// goes on, it is given once a minute.
const contendedFor = 2 * time.Minute

// why says why a car is not running, or not well.
func why(c *car.Snapshot, link *link.State, last *endJSON) string {
	switch {
	case c.LinkUp && c.Contended != "" && time.Since(c.ContendedAt) < contendedFor:
		return string(c.Contended)
	case c.Phase == session.PhaseRunning:
		return ""
	case c.Phase != session.PhaseWaiting:
		return "connect sequence: " + map[session.Phase]string{
			session.PhaseAdmitting: "modules are asked about the devices",
			session.PhaseStatuses:  "waiting for first statuses",
			session.PhaseCommands:  "waiting for responses to the first commands",
		}[c.Phase]
	case !c.LinkUp && connected(link) && link.Refused > 0:
		return "the broker refuses the subscription to " + c.ID.String() + fleet.TopicFromGateway
	case !c.LinkUp && !link.Up && link.LastError != "":
		return "no connection to the broker: " + link.LastError
	case !c.LinkUp:
		return "no connection to the broker"
	case c.LastSeen.IsZero():
		return "its gateway has not been heard since the start of the server"
	case last == nil:
		return "its gateway sends messages but has not connected"
	}
	text := "last session ended: " + last.Reason
	if !last.Established {
		text = "its gateway tried to connect and failed: " + last.Reason
	}
	if c.LastSeen.After(last.At.Add(time.Second)) {
		return text + "; its gateway sends messages but has not connected again"
	}
	return text + "; not heard since"
}

// connected tells whether every connection to the broker is made.
func connected(l *link.State) bool {
	return !slices.ContainsFunc(l.Connections, func(c link.ConnectionState) bool { return !c.Up })
}

// carQuery selects, sorts and pages cars.
type carQuery struct {
	text, state, reason string
	module              int64 // -1: any
	sort                string
	descending          bool
	limit, offset       int
}

// orders are how cars can be sorted.
var orders = map[string]func(a, b *carBrief) int{
	"name":      func(a, b *carBrief) int { return natural(a.Name, b.Name) },
	"state":     func(a, b *carBrief) int { return cmp.Compare(a.State, b.State) },
	"since":     func(a, b *carBrief) int { return compareTimes(a.Since, b.Since) },
	"last_seen": func(a, b *carBrief) int { return compareTimes(a.LastSeen, b.LastSeen) },
	"devices":   func(a, b *carBrief) int { return cmp.Compare(a.Devices, b.Devices) },
	"statuses":  func(a, b *carBrief) int { return cmp.Compare(a.Statuses, b.Statuses) },
	"sessions":  func(a, b *carBrief) int { return cmp.Compare(a.Sessions, b.Sessions) },
	"ends":      func(a, b *carBrief) int { return cmp.Compare(a.Ends, b.Ends) },
	"why":       func(a, b *carBrief) int { return cmp.Compare(a.Why, b.Why) },
	"replica":   func(a, b *carBrief) int { return natural(a.Replica, b.Replica) },
}

// compareTimes puts what never was first.
func compareTimes(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return a.Compare(*b)
}

// parseCarQuery reads the query of the list; the error names the parameter.
func parseCarQuery(q url.Values, most int) (carQuery, error) {
	out := carQuery{text: strings.ToLower(q.Get("q")), state: q.Get("state"), reason: strings.ToLower(q.Get("reason")), module: -1, sort: q.Get("sort"), limit: defaultLimit}
	for key, values := range q {
		if !slices.Contains([]string{"q", "state", "reason", "module", "sort", "order", "limit", "offset"}, key) {
			return out, fmt.Errorf("parameter %q is not known; expected q, state, reason, module, sort, order, limit or offset", key)
		}
		if len(values) > 1 {
			return out, fmt.Errorf("parameter %s is given more than once", key)
		}
	}
	if out.sort == "" {
		out.sort = "name"
	}
	if orders[out.sort] == nil {
		return out, fmt.Errorf("sort is %q; expected name, state, since, last_seen, devices, statuses, sessions, ends, why or replica", out.sort)
	}
	if !slices.Contains([]string{"", "waiting", "connecting", "running"}, out.state) {
		return out, fmt.Errorf("state is %q; expected waiting, connecting or running", out.state)
	}
	switch q.Get("order") {
	case "", "asc":
	case "desc":
		out.descending = true
	default:
		return out, fmt.Errorf("order is %q; expected asc or desc", q.Get("order"))
	}
	if text := q.Get("module"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return out, fmt.Errorf("module is %q; expected a module number", text)
		}
		out.module = n
	}
	number := func(key string, into *int, least, most int) error {
		text := q.Get(key)
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%s is %q; expected a number from %d to %d", key, text, least, most)
		}
		*into = n
		return nil
	}
	if err := number("limit", &out.limit, 1, most); err != nil {
		return out, err
	}
	return out, number("offset", &out.offset, 0, 1<<30)
}

func (q *carQuery) matches(c *car.Snapshot, b *carBrief) bool {
	switch {
	case q.state != "" && b.State != q.state,
		q.text != "" && !strings.Contains(strings.ToLower(b.Name), q.text),
		q.reason != "" && !strings.Contains(strings.ToLower(b.Why), q.reason):
		return false
	case q.module < 0:
		return true
	}
	return slices.ContainsFunc(c.Modules, func(m car.ModuleSnapshot) bool { return int64(m.Number) == q.module })
}

// carList is the answer of /api/v1/cars.
type carList struct {
	Total   int            `json:"total"`
	Matched int            `json:"matched"`
	States  map[string]int `json:"states"` // of all cars
	Cars    []carBrief     `json:"cars"`
	// Missing are the replicas whose cars are not in the list.
	Missing []absent `json:"missing,omitempty"`
}

func (s *Server) cars(w http.ResponseWriter, r *http.Request) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: "+err.Error())
		return
	}
	most := maxLimit
	if _, from := peer.FromRequest(r); from { // which pages what it gets
		most = maxPeerLimit
	}
	q, err := parseCarQuery(values, most)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	link := s.opts.Source.Link()
	snapshots := s.opts.Source.Cars()
	out := carList{Total: len(snapshots), States: map[string]int{"waiting": 0, "connecting": 0, "running": 0}, Cars: []carBrief{}}
	for i := range snapshots {
		b := s.brief(&snapshots[i], &link)
		out.States[b.State]++
		if q.matches(&snapshots[i], &b) {
			out.Cars = append(out.Cars, b)
		}
	}
	out.Matched = len(out.Cars)
	values.Set("limit", strconv.Itoa(min(q.offset+q.limit, maxPeerLimit)))
	values.Del("offset")
	lists, missing := gather[carList](s, r, "/api/v1/cars", values)
	out.merge(lists)
	out.Missing = missing
	by := orders[q.sort]
	slices.SortStableFunc(out.Cars, func(a, b carBrief) int {
		n := by(&a, &b)
		if q.descending {
			n = -n
		}
		return cmp.Or(n, natural(a.Name, b.Name))
	})
	from := min(q.offset, len(out.Cars))
	out.Cars = out.Cars[from:min(from+q.limit, len(out.Cars))]
	answerLong(w, r, out)
}
