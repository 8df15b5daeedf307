package admin

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"external-server/internal/link"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "alive")
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready      bool        `json:"ready"`
	Components []Component `json:"components"`
}

// readyz says what is ready and why not, in text for people or JSON for who
// accepts it.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	out := readiness{Ready: true, Components: s.opts.Source.Components()}
	for _, c := range out.Components {
		out.Ready = out.Ready && c.Ready
	}
	status := http.StatusOK
	if !out.Ready {
		status = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "json") {
		answer(w, status, out)
		return
	}
	if p, ok := w.(*problems); ok {
		p.plain = true // the reasons are the answer
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	for _, c := range out.Components {
		text := "ready"
		switch {
		case !c.Ready:
			text = "not ready: " + c.Reason
		case c.Reason != "":
			text += ", " + c.Reason
		}
		fmt.Fprintf(w, "%s: %s\n", c.Name, text)
	}
}

// serverInfo is the answer of /api/v1/server.
type serverInfo struct {
	Company    string         `json:"company"`
	Version    string         `json:"version"`
	GoVersion  string         `json:"go_version"`
	Started    time.Time      `json:"started"`
	Now        time.Time      `json:"now"`
	Cars       map[string]int `json:"cars"` // by state
	Link       linkInfo       `json:"link"`
	Ready      bool           `json:"ready"`
	Components []Component    `json:"components"`
	You        you            `json:"you"`
	Cluster    *clusterInfo   `json:"cluster,omitempty"`
	Map        *mapInfo       `json:"map,omitempty"`
}

type you struct {
	Token string `json:"token,omitempty"` // its name
	Role  string `json:"role"`
}

type linkInfo struct {
	Up          bool       `json:"up"`
	Since       *time.Time `json:"since,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
	Connections int        `json:"connections"`
	Cars        int        `json:"cars"`
	// What the broker keeps for the next process, why it does not, and why this one has
	// stopped serving for good.
	Sessions link.Sessions `json:"sessions"`
	Declined string        `json:"sessions_declined,omitempty"`
	Stopped  string        `json:"stopped,omitempty"`
}

// mapInfo is where the dashboard's map has its tiles from.
type mapInfo struct {
	Tiles       string `json:"tiles"`
	Attribution string `json:"attribution,omitempty"`
	MaxZoom     int    `json:"max_zoom"`
}

func (s *Server) server(w http.ResponseWriter, r *http.Request) {
	state := s.opts.Source.Link()
	i := who(r)
	out := serverInfo{
		Company: s.opts.Source.Company(), Version: s.opts.Version, GoVersion: runtime.Version(),
		Started: s.opts.Hub.Started, Now: time.Now(), Cars: s.opts.Hub.States(),
		Link: linkInfo{Up: state.Up, Since: when(state.Since), LastError: state.LastError, Connections: len(state.Connections), Cars: state.Cars,
			Sessions: state.Sessions(), Declined: state.Declined, Stopped: state.Stopped},
		You: you{Token: i.name, Role: string(i.role)}, Ready: true, Components: s.opts.Source.Components(),
		Cluster: s.clusterInfo(), Map: s.access.Load().tiles,
	}
	for _, c := range out.Components {
		out.Ready = out.Ready && c.Ready
	}
	answer(w, http.StatusOK, out)
}

// when is a time for JSON: absent when it is zero.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
