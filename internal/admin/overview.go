package admin

import (
	"net/http"
	"slices"
	"time"

	"external-server/internal/observe/alerts"
	"external-server/internal/observe/history"
)

// historyJSON is the answer of /api/v1/history.
type historyJSON struct {
	Step   float64         `json:"step_s"` // between two points, seconds
	Points []history.Point `json:"points"`
	// Missing are the replicas whose part is not in the points.
	Missing []absent `json:"missing,omitempty"`
}

// history answers what happened in the last hour, at all replicas.
func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	out := historyJSON{Step: history.Step.Seconds(), Points: s.opts.Hub.History()}
	others, missing := gather[historyJSON](s, r, "/api/v1/history", nil)
	if len(others) > 0 {
		of := [][]history.Point{out.Points}
		for _, o := range others {
			of = append(of, o.Points)
		}
		out.Points = history.Merge(of...)
	}
	out.Missing = missing
	answerLong(w, r, out)
}

// alertsJSON is the answer of /api/v1/alerts.
type alertsJSON struct {
	At     *time.Time     `json:"at,omitempty"` // of the last judgement
	Rules  int            `json:"rules"`        // that are watched
	Alerts []alerts.Alert `json:"alerts"`       // those that are on
	// Missing are the replicas whose alerts are not known.
	Missing []absent `json:"missing,omitempty"`
}

// alerts answers which alerts are on, at all replicas.
func (s *Server) alerts(w http.ResponseWriter, r *http.Request) {
	on, at := s.opts.Hub.Alerts()
	out := alertsJSON{At: when(at), Rules: len(alerts.Names()), Alerts: on}
	if self := s.self(); self != "" {
		for i := range out.Alerts {
			out.Alerts[i].Replica = self
		}
	}
	others, missing := gather[alertsJSON](s, r, "/api/v1/alerts", nil)
	for _, o := range others {
		for _, a := range o.Alerts {
			same := func(known alerts.Alert) bool { return known.Name == a.Name }
			if !alerts.FleetWide(a.Name) || !slices.ContainsFunc(out.Alerts, same) {
				out.Alerts = append(out.Alerts, a)
			}
		}
	}
	alerts.Sort(out.Alerts)
	out.Missing = missing
	answerLong(w, r, out)
}

// self is the name of this replica, "" when it is alone.
func (s *Server) self() string {
	if s.opts.Cluster != nil {
		if view := s.opts.Cluster.View(); view != nil {
			return view.Self
		}
	}
	return ""
}
