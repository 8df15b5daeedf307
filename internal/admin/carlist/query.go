package carlist

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Paging of the list.
const (
	defaultLimit = 100
	MaxLimit     = 10_000  // of a page
	MaxAll       = 1 << 20 // of what is not paged: for another replica, and for a spreadsheet
)

// Query selects, sorts and pages cars.
type Query struct {
	text, find, state string
	reason, why       string
	module            int64        // -1: any
	labels            []labelQuery // all of them
	sort              string
	descending        bool
	limit, offset     int
	CSV               bool // the answer is a table for spreadsheets
}

// orders are how cars can be sorted.
var orders = map[string]func(a, b *Brief) int{
	"name":      func(a, b *Brief) int { return natural(a.Name, b.Name) },
	"state":     func(a, b *Brief) int { return cmp.Compare(a.State, b.State) },
	"since":     func(a, b *Brief) int { return compareTimes(a.Since, b.Since) },
	"last_seen": func(a, b *Brief) int { return compareTimes(a.LastSeen, b.LastSeen) },
	"devices":   func(a, b *Brief) int { return cmp.Compare(a.Devices, b.Devices) },
	"statuses":  func(a, b *Brief) int { return cmp.Compare(a.Statuses, b.Statuses) },
	"sessions":  func(a, b *Brief) int { return cmp.Compare(a.Sessions, b.Sessions) },
	"ends":      func(a, b *Brief) int { return cmp.Compare(a.Ends, b.Ends) },
	"why":       func(a, b *Brief) int { return cmp.Compare(a.Why, b.Why) },
	"replica":   func(a, b *Brief) int { return natural(a.Replica, b.Replica) },
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

// parameters of the list.
var parameters = []string{"q", "find", "state", "reason", "why", "module", "label", "sort", "order", "limit", "offset", "format"}

// ParseQuery reads the query of the list; the error names the parameter. A replica that
// asks gets all cars, not a page of them.
func ParseQuery(q url.Values, replica bool) (Query, error) {
	out := Query{
		text: strings.ToLower(q.Get("q")), find: strings.ToLower(strings.TrimSpace(q.Get("find"))), state: q.Get("state"),
		reason: strings.ToLower(q.Get("reason")), why: q.Get("why"), module: -1, sort: q.Get("sort"), limit: defaultLimit,
	}
	for key, values := range q {
		if !slices.Contains(parameters, key) {
			return out, fmt.Errorf("parameter %q is not known; expected %s or %s", key, strings.Join(parameters[:len(parameters)-1], ", "), parameters[len(parameters)-1])
		}
		if len(values) > 1 && key != "label" {
			return out, fmt.Errorf("parameter %s is given more than once", key)
		}
	}
	most := MaxLimit
	switch q.Get("format") {
	case "", "json":
	case "csv":
		out.CSV, out.limit, most = true, MaxAll, MaxAll
	default:
		return out, fmt.Errorf("format is %q; expected json or csv", q.Get("format"))
	}
	if replica {
		most = MaxAll
	}
	var err error
	if out.labels, err = parseLabels(q["label"]); err != nil {
		return out, err
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

// Matches tells whether the list has the car, of which has tells whether it has a module.
func (q *Query) Matches(b *Brief, has func(module int32) bool) bool {
	return (q.state == "" || b.State == q.state) &&
		contains(b.Name, q.text) && contains(b.Why, q.reason) && (q.why == "" || b.Why == q.why) &&
		labelled(b.Labels, q.labels) && q.found(b) &&
		(q.module < 0 || has(int32(q.module)))
}

// found tells whether what was searched for is in the name, the reason or a label.
func (q *Query) found(b *Brief) bool {
	if contains(b.Name, q.find) || contains(b.Why, q.find) {
		return true
	}
	for name, value := range b.Labels {
		if contains(name+"="+value, q.find) {
			return true
		}
	}
	return false
}

// contains takes a part in lower case.
func contains(text, part string) bool { return strings.Contains(strings.ToLower(text), part) }

// Sort orders cars; those that are equal stand in the natural order of their names.
func (q *Query) Sort(cars []Brief) {
	by := orders[q.sort]
	slices.SortStableFunc(cars, func(a, b Brief) int {
		n := by(&a, &b)
		if q.descending {
			n = -n
		}
		return cmp.Or(n, natural(a.Name, b.Name))
	})
}

// Page is the part of the sorted cars that was asked for.
func (q *Query) Page(cars []Brief) []Brief {
	from := min(q.offset, len(cars))
	return cars[from:min(from+q.limit, len(cars))]
}

// Needed is how many cars of each replica the page is made from.
func (q *Query) Needed() int { return min(q.offset+q.limit, MaxAll) }
