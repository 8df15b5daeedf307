package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"external-server/internal/config"
	"external-server/internal/logging"
	"external-server/internal/peer"
)

// Paging of the lines of the log.
const (
	defaultLines = 200
	maxLines     = 1000
)

// logLine is one line of the log.
type logLine struct {
	At        time.Time `json:"at"`
	Level     string    `json:"level"`
	Component string    `json:"component"`
	Car       string    `json:"car,omitempty"`
	Source    string    `json:"source,omitempty"`
	Text      string    `json:"text"`
	Replica   string    `json:"replica,omitempty"`
}

// logJSON is the answer of /api/v1/log.
type logJSON struct {
	Lines []logLine `json:"lines"` // newest first
	// Missing are the replicas whose lines are not in the list.
	Missing []absent `json:"missing,omitempty"`
}

// logQuery selects lines.
type logQuery struct {
	least     slog.Level
	car, text string
	limit     int
}

// parseLogQuery reads the query of the log; the error names the parameter.
func parseLogQuery(q url.Values) (logQuery, error) {
	out := logQuery{least: slog.LevelDebug, car: q.Get("car"), text: strings.ToLower(q.Get("q")), limit: defaultLines}
	for key, values := range q {
		if !slices.Contains([]string{"level", "car", "q", "limit"}, key) {
			return out, fmt.Errorf("parameter %q is not known; expected level, car, q or limit", key)
		}
		if len(values) > 1 {
			return out, fmt.Errorf("parameter %s is given more than once", key)
		}
	}
	if name := q.Get("level"); name != "" {
		level, err := logging.ParseLevel(name)
		if err != nil {
			return out, fmt.Errorf("level: %w", err)
		}
		out.least = level
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLines {
			return out, fmt.Errorf("limit is %q; expected a number from 1 to %d", text, maxLines)
		}
		out.limit = n
	}
	return out, nil
}

func (q *logQuery) matches(l *logging.Line) bool {
	return (q.car == "" || l.Car == q.car) && (q.text == "" || strings.Contains(strings.ToLower(l.Text+" "+l.Car+" "+l.Component), q.text))
}

// logLines answers the last lines of the log, of all replicas. Who may read anything may
// read them, but not a stranger whom admin.insecure lets in: they name people and machines.
func (s *Server) logLines(w http.ResponseWriter, r *http.Request) {
	i := who(r)
	if _, from := peer.FromRequest(r); !from && i.name == "" && !i.may(config.RoleOperate) {
		fail(w, http.StatusForbidden, "the log needs a token, of the role read or operate")
		return
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: "+err.Error())
		return
	}
	q, err := parseLogQuery(values)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	out := logJSON{Lines: []logLine{}}
	self := s.self()
	for _, l := range s.opts.Source.LogLines(q.least, q.limit, q.matches) {
		component := l.Component
		if component == "" {
			component = logging.ComponentServer
		}
		out.Lines = append(out.Lines, logLine{At: l.At, Level: logging.LevelName(l.Level), Component: component, Car: l.Car, Source: l.Source, Text: l.Text, Replica: self})
	}
	others, missing := gather[logJSON](s, r, "/api/v1/log", values)
	for _, o := range others {
		out.Lines = append(out.Lines, o.Lines...)
	}
	if len(others) > 0 {
		slices.SortStableFunc(out.Lines, func(a, b logLine) int { return b.At.Compare(a.At) })
	}
	out.Lines = out.Lines[:min(len(out.Lines), q.limit)]
	out.Missing = missing
	answerLong(w, r, out)
}
