package admin

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/admin/carlist"
	"external-server/internal/admin/reply"
	"external-server/internal/car"
	"external-server/internal/fleet"
	"external-server/internal/link"
	"external-server/internal/observe"
	"external-server/internal/peer"
	"external-server/internal/session"
)

type (
	carBrief = carlist.Brief
	endJSON  = carlist.End
)

func endOf(e observe.End) *endJSON {
	return &endJSON{At: e.At, Reason: e.Reason, Session: e.Session, Established: e.Established, Seconds: e.Lasted.Seconds(), Unanswered: e.Unanswered}
}

func (s *Server) brief(c *car.Snapshot, link *link.State) carBrief {
	b := carBrief{
		Name: c.ID.Car, Labels: s.opts.Source.Labels(c.ID.Car), State: observe.StateOf(c.Phase), Since: when(c.Since), Session: c.SessionID, Resumed: when(c.Resumed), LastSeen: when(c.LastSeen),
		Devices: len(c.Devices), Statuses: c.Statuses, Sessions: c.Sessions, Suspended: suspended(c),
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
	case suspended(c):
		return noBroker(c, link) + "; its session waits for the connection"
	case c.Phase == session.PhaseRunning:
		return ""
	case c.Phase != session.PhaseWaiting:
		return "connect sequence: " + map[session.Phase]string{
			session.PhaseAdmitting: "modules are asked about the devices",
			session.PhaseStatuses:  "waiting for first statuses",
			session.PhaseCommands:  "waiting for responses to the first commands",
		}[c.Phase]
	case !c.LinkUp:
		return noBroker(c, link)
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

// suspended tells whether the session of the car waits for the connection to the broker.
func suspended(c *car.Snapshot) bool { return !c.LinkUp && c.Phase == session.PhaseRunning }

// noBroker says why the broker does not hand the car's messages out.
func noBroker(c *car.Snapshot, link *link.State) string {
	switch {
	case connected(link) && link.Refused > 0:
		return "the broker refuses the subscription to " + c.ID.String() + fleet.TopicFromGateway
	case !link.Up && link.LastError != "":
		return "no connection to the broker: " + link.LastError
	}
	return "no connection to the broker"
}

// connected tells whether every connection to the broker is made.
func connected(l *link.State) bool {
	return !slices.ContainsFunc(l.Connections, func(c link.ConnectionState) bool { return !c.Up })
}

// carList is the answer of /api/v1/cars.
type carList struct {
	Total   int            `json:"total"`
	Matched int            `json:"matched"`
	States  map[string]int `json:"states"` // of all cars
	Cars    []carBrief     `json:"cars"`
	// Suspended are those of all cars whose sessions wait for the broker; see carlist.Brief.
	Suspended int `json:"suspended,omitempty"`
	// Missing are the replicas whose cars are not in the list.
	Missing []absent `json:"missing,omitempty"`
	// Unserved says why cars are not in the list that belong to shards without owner.
	Unserved string `json:"unserved,omitempty"`
}

func (s *Server) cars(w http.ResponseWriter, r *http.Request) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: "+err.Error())
		return
	}
	_, from := peer.FromRequest(r) // which pages what it gets
	q, err := carlist.ParseQuery(values, from)
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
		if b.Suspended {
			out.Suspended++
		}
		has := func(module int32) bool {
			return slices.ContainsFunc(snapshots[i].Modules, func(m car.ModuleSnapshot) bool { return m.Number == module })
		}
		if q.Matches(&b, has) {
			out.Cars = append(out.Cars, b)
		}
	}
	out.Matched = len(out.Cars)
	values.Set("limit", strconv.Itoa(q.Needed()))
	values.Del("offset")
	values.Del("format")
	lists, missing := gather[carList](s, r, "/api/v1/cars", values)
	out.merge(lists)
	out.Missing, out.Unserved = missing, s.unserved()
	q.Sort(out.Cars)
	out.Cars = q.Page(out.Cars)
	if q.CSV {
		s.spreadsheet(w, r, &out)
		return
	}
	answerLong(w, r, out)
}

// missingHeader names the replicas whose cars are not in a spreadsheet.
const missingHeader = "X-Missing-Replicas"

func (s *Server) spreadsheet(w http.ResponseWriter, r *http.Request, list *carList) {
	var missing []string
	for _, m := range list.Missing {
		missing = append(missing, m.Replica)
	}
	if len(missing) > 0 {
		w.Header().Set(missingHeader, strings.Join(missing, ", "))
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="cars-%s.csv"`, time.Now().UTC().Format("20060102-150405")))
	reply.Compressed(w, r, func(out io.Writer) error { return carlist.WriteCSV(out, list.Cars) })
}
