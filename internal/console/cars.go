package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// carBrief is what the tables need of a car.
type carBrief struct {
	Name     string     `json:"name"`
	Labels   labels     `json:"labels"`
	State    string     `json:"state"`
	Since    *time.Time `json:"since"`
	Session  string     `json:"session"`
	Resumed  *time.Time `json:"resumed"`
	LastSeen *time.Time `json:"last_seen"`
	Devices  int        `json:"devices"`
	Statuses uint64     `json:"statuses"`
	Why      string     `json:"why"`
	Replica  string     `json:"replica"` // in a cluster
	Epoch    int64      `json:"epoch"`
}

// resumedFor is how long the list tells that the session of a car was resumed.
const resumedFor = 10 * time.Minute

// news is why the car is not connected, or that its session has just been resumed.
func (b *carBrief) news(now time.Time) string {
	if b.Why == "" && b.Resumed != nil && now.Sub(*b.Resumed) < resumedFor {
		return "resumed " + ago(now, b.Resumed) + " ago"
	}
	return b.Why
}

// Cars prints the table of cars and their counts.
func Cars(ctx context.Context, c *Client, query url.Values, out io.Writer, colours bool) error {
	var list struct {
		Total     int            `json:"total"`
		Matched   int            `json:"matched"`
		States    map[string]int `json:"states"`
		Suspended int            `json:"suspended"`
		Cars      []carBrief     `json:"cars"`
		Unserved  string         `json:"unserved"`
		Missing   []struct {
			Replica string `json:"replica"`
			Reason  string `json:"reason"`
		} `json:"missing"`
	}
	if err := c.get(ctx, "/api/v1/cars", query, &list); err != nil {
		return err
	}
	now := time.Now()
	table := newTable(colours, 1)
	shared := len(list.Missing) > 0 || slices.ContainsFunc(list.Cars, func(b carBrief) bool { return b.Replica != "" })
	labelled := slices.ContainsFunc(list.Cars, func(b carBrief) bool { return len(b.Labels) > 0 })
	row := func(replica, epoch, labels, why string, cells ...string) {
		if shared {
			cells = append(cells, replica, epoch)
		}
		if labelled {
			cells = append(cells, labels)
		}
		table.row(append(cells, why)...)
	}
	row("REPLICA", "EPOCH", "LABELS", "WHY", "CAR", "STATE", "FOR", "LAST SEEN", "DEVICES", "STATUSES")
	for _, b := range list.Cars {
		row(b.Replica, fmt.Sprint(b.Epoch), b.Labels.String(), b.news(now), b.Name, b.State, ago(now, b.Since), ago(now, b.LastSeen), fmt.Sprint(b.Devices), fmt.Sprint(b.Statuses))
	}
	if err := table.write(out); err != nil {
		return err
	}
	waits := ""
	if list.Suspended > 0 {
		waits = fmt.Sprintf(" (%d of these wait for the broker)", list.Suspended)
	}
	shown := ""
	if len(list.Cars) < list.Total {
		shown = fmt.Sprintf("; %d match, %d shown", list.Matched, len(list.Cars))
	}
	if _, err := fmt.Fprintf(out, "%d cars: %d running%s, %d connecting, %d waiting%s\n",
		list.Total, list.States["running"], waits, list.States["connecting"], list.States["waiting"], shown); err != nil {
		return err
	}
	if list.Unserved != "" {
		if _, err := fmt.Fprintf(out, "cars that no replica serves are not in the list: %s\n", Clean(list.Unserved)); err != nil {
			return err
		}
	}
	for _, m := range list.Missing {
		if _, err := fmt.Fprintf(out, "the cars of the replica %s are not in the list: %s\n", Clean(m.Replica), Clean(m.Reason)); err != nil {
			return err
		}
	}
	return nil
}

// table is a tab-aligned table whose column of states may be coloured.
type table struct {
	colours bool
	states  int // column
	rows    [][]string
}

func newTable(colours bool, states int) *table { return &table{colours: colours, states: states} }

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = Clean(cells[i])
		if i < len(cells)-1 { // every row is padded to the widest
			cells[i] = brief(cells[i], cellWidth)
		}
	}
	t.rows = append(t.rows, cells)
}

// write aligns the plain text and colours it afterwards: escapes have no width.
func (t *table) write(out io.Writer) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, cells := range t.rows {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	lines := strings.SplitAfter(b.String(), "\n")
	for i, line := range lines {
		if t.colours && i > 0 && i < len(t.rows) {
			state := t.rows[i][t.states]
			line = strings.Replace(line, " "+state+" ", " "+paint(true, stateColour(state), state)+" ", 1)
		}
		if _, err := io.WriteString(out, strings.TrimRight(line, " \n")+strings.Repeat("\n", strings.Count(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func stateColour(state string) string {
	switch state {
	case "running", "acknowledged":
		return green
	case "connecting", "sent", "queued", "starting":
		return yellow
	case "waiting", "refused", "expired", "lost", "discarded", "out-of-service", "no-api":
		return red
	}
	return plain
}

type payload struct {
	Size      int             `json:"size"`
	Truncated bool            `json:"truncated"`
	Encoding  string          `json:"encoding"`
	Data      json.RawMessage `json:"data"`
}

// String is one harmless line.
func (p *payload) String() string {
	if p == nil {
		return ""
	}
	text := string(p.Data)
	if p.Encoding != "json" {
		var s string
		if json.Unmarshal(p.Data, &s) == nil {
			text = s
		}
	}
	if p.Encoding == "hex" {
		text = "0x" + text
	}
	if p.Truncated {
		text += fmt.Sprintf("… (%d bytes)", p.Size)
	}
	return Clean(text)
}

type device struct {
	Module int32  `json:"module"`
	Type   uint32 `json:"type"`
	Role   string `json:"role"`
	Name   string `json:"name"`
}

func (d device) String() string {
	return fmt.Sprintf("%d/%d/%s/%s", d.Module, d.Type, brief(d.Role, nameWidth), brief(d.Name, nameWidth))
}

type command struct {
	Device   device     `json:"device"`
	State    string     `json:"state"`
	Counter  *uint32    `json:"counter"`
	Response string     `json:"response"`
	Queued   *time.Time `json:"queued"`
	Accepted *time.Time `json:"accepted"` // an operator's, by the HTTP API
	Ended    *time.Time `json:"ended"`
	Payload  *payload   `json:"payload"`
}

type carDetail struct {
	Name     string     `json:"name"`
	Labels   labels     `json:"labels"`
	Company  string     `json:"company"`
	State    string     `json:"state"`
	Phase    string     `json:"phase"`
	Since    *time.Time `json:"since"`
	Session  string     `json:"session"`
	Resumed  *time.Time `json:"resumed"`
	LastSeen *time.Time `json:"last_seen"`
	LinkUp   bool       `json:"link_up"`
	Why      string     `json:"why"`
	Statuses uint64     `json:"statuses"`
	Sessions uint64     `json:"sessions"`
	Devices  []struct {
		device
		Connected  bool   `json:"connected"`
		Statuses   uint64 `json:"statuses"`
		LastStatus *struct {
			At      time.Time `json:"at"`
			State   string    `json:"state"`
			Payload *payload  `json:"payload"`
			Error   *payload  `json:"error"`
		} `json:"last_status"`
	} `json:"devices"`
	Modules []struct {
		Number        int32   `json:"number"`
		Queued        int     `json:"queued"`
		OldestSeconds float64 `json:"oldest_seconds"`
		Statuses      uint64  `json:"statuses"`
		Errors        uint64  `json:"errors"`
		Lost          uint64  `json:"lost"`
	} `json:"modules"`
	Ends []struct {
		At          time.Time `json:"at"`
		Reason      string    `json:"reason"`
		Session     string    `json:"session"`
		Established bool      `json:"established"`
		Seconds     float64   `json:"seconds"`
	} `json:"session_ends"`
	Commands []command         `json:"recent_commands"`
	Drops    map[string]uint64 `json:"drops"`
}

// Car prints everything about one car.
func Car(ctx context.Context, c *Client, name string, out io.Writer, colours bool) error {
	var d carDetail
	if err := c.get(ctx, "/api/v1/cars/"+url.PathEscape(name), nil, &d); err != nil {
		return err
	}
	now := time.Now()
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s: %s for %s", Clean(d.Company), Clean(d.Name), paint(colours, stateColour(d.State), d.State), ago(now, d.Since))
	if d.Session != "" {
		fmt.Fprintf(&b, ", session %s", Clean(d.Session))
	}
	if d.Resumed != nil {
		fmt.Fprintf(&b, ", resumed %s ago", ago(now, d.Resumed))
	}
	fmt.Fprintf(&b, "\nlast message of the gateway: %s ago; %d statuses, %d sessions\n", ago(now, d.LastSeen), d.Statuses, d.Sessions)
	if len(d.Labels) > 0 {
		fmt.Fprintf(&b, "labels: %s\n", Clean(d.Labels.String()))
	}
	if d.Why != "" {
		fmt.Fprintf(&b, "why: %s\n", Clean(d.Why))
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return err
	}
	parts := newTable(colours, 1)
	parts.row("DEVICE", "CONNECTED", "STATUSES", "LAST", "STATE", "STATUS")
	for _, dev := range d.Devices {
		last, state, text := "never", "", ""
		if s := dev.LastStatus; s != nil {
			last, state, text = ago(now, &s.At), s.State, s.Payload.String()
			if s.Error != nil {
				text += "  error: " + s.Error.String()
			}
		}
		parts.row(dev.device.String(), yes(dev.Connected), fmt.Sprint(dev.Statuses), last, state, text)
	}
	modules := newTable(colours, 1)
	modules.row("MODULE", "QUEUED", "OLDEST", "STATUSES", "ERRORS", "LOST")
	for _, m := range d.Modules {
		modules.row(fmt.Sprint(m.Number), fmt.Sprint(m.Queued), duration(time.Duration(m.OldestSeconds*float64(time.Second))),
			fmt.Sprint(m.Statuses), fmt.Sprint(m.Errors), fmt.Sprint(m.Lost))
	}
	commands := newTable(colours, 1)
	commands.row("COMMAND", "STATE", "AGE", "DEVICE", "RESPONSE", "PAYLOAD")
	for _, cmd := range d.Commands {
		n := "-"
		if cmd.Counter != nil {
			n = fmt.Sprint(*cmd.Counter)
		}
		commands.row(n, cmd.State, ago(now, cmp.Or(cmd.Queued, cmd.Accepted)), cmd.Device.String(), cmd.Response, cmd.Payload.String())
	}
	ends := newTable(colours, 1)
	ends.row("SESSION", "ENDED", "LASTED", "REASON")
	for _, e := range d.Ends {
		ends.row(e.Session, e.At.Local().Format(time.DateTime), duration(time.Duration(e.Seconds*float64(time.Second))), e.Reason)
	}
	drops := newTable(colours, 1)
	drops.row("DROPPED", "COUNT")
	for _, reason := range sortedKeys(d.Drops) {
		drops.row(reason, fmt.Sprint(d.Drops[reason]))
	}
	for _, t := range []*table{parts, modules, commands, ends, drops} {
		if len(t.rows) == 1 {
			continue
		}
		if _, err := fmt.Fprintln(out); err != nil {
			return err
		}
		if err := t.write(out); err != nil {
			return err
		}
	}
	return nil
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
