package fleetapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"external-server/internal/fleet"
)

// recorded is a request as it came over the wire.
type recorded struct {
	Method, Path, Query, Body string
	header                    http.Header
}

// wire is a web server that records requests and answers as told.
type wire struct {
	*httptest.Server
	mu       sync.Mutex
	requests []recorded
	arrived  chan recorded
}

func newWire(t testing.TB, answer func(w http.ResponseWriter, n int)) *wire {
	s := &wire{arrived: make(chan recorded, 100)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rec := recorded{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Body: string(body), header: r.Header.Clone()}
		s.mu.Lock()
		n := len(s.requests)
		s.requests = append(s.requests, rec)
		s.mu.Unlock()
		answer(w, n)
		s.arrived <- rec
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *wire) all() []recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func readTable(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

var stamp = regexp.MustCompile(`"timestamp":(\d+)\}`)

// TestRequests compares every byte of a status request with the table (MM-1 to
// MM-3).
func TestRequests(t *testing.T) {
	var table []struct {
		Name, Module, Call, Data string
		Key                      string `json:"api_key"`
		Device                   struct {
			Type       uint32
			Role, Name string
		}
		Want *recorded
	}
	readTable(t, "requests.json", &table)
	for _, tt := range table {
		t.Run(tt.Name, func(t *testing.T) {
			s := newWire(t, func(w http.ResponseWriter, _ int) {
				if _, err := io.WriteString(w, `"ok"`); err != nil {
					t.Error(err)
				}
			})
			pairs := []string{"api_url", s.URL + "/v2/protocol/"}
			if tt.Key != "" {
				pairs = append(pairs, "api_key", tt.Key)
			}
			i := open(t, Options{Builtin: tt.Module}, pairs...)
			d := fleet.Device{Module: i.kind.number, Type: tt.Device.Type, Role: tt.Device.Role, Name: tt.Device.Name}
			before := time.Now().Unix()
			call := i.ForwardStatus
			if tt.Call == "error" {
				call = i.ForwardError
			}
			if err := call(t.Context(), d, []byte(tt.Data)); (err != nil) != (tt.Want == nil && tt.Module == Mission) {
				t.Fatal(err)
			}
			if err := i.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := s.all()
			if tt.Want == nil {
				if len(got) != 0 {
					t.Fatalf("sent %+v", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d requests, want 1", len(got))
			}
			checkHeader(t, got[0], "application/json")
			if m := stamp.FindStringSubmatch(got[0].Body); m == nil {
				t.Errorf("no timestamp in %s", got[0].Body)
			} else if at, err := strconv.ParseInt(m[1], 10, 64); err != nil || at < before || at > time.Now().Unix() {
				t.Errorf("timestamp %s is not the time in seconds", m[1]) // MM-1
			}
			got[0].Body = stamp.ReplaceAllString(got[0].Body, `"timestamp":SECONDS}`)
			got[0].header = nil
			if got[0].Method != tt.Want.Method || got[0].Path != tt.Want.Path || got[0].Query != tt.Want.Query || got[0].Body != tt.Want.Body {
				t.Errorf("sent\n%+v\nwant\n%+v", got[0], *tt.Want)
			}
		})
	}
}

func checkHeader(t *testing.T, r recorded, contentType string) {
	t.Helper()
	for name, want := range map[string]string{"Accept": "application/json", "Content-Type": contentType, "User-Agent": "", "Cookie": "", "Authorization": "", "Referer": ""} {
		if got := r.header.Get(name); got != want { // MM-3
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
}

// TestPolls plays the answers of the table and compares the requests and the
// commands that come out.
func TestPolls(t *testing.T) {
	var table []struct {
		Name, Module string
		Key          string `json:"api_key"`
		Answers      []struct {
			Status     int
			Body, Type string
		}
		Queries, Commands []string
	}
	readTable(t, "polls.json", &table)
	for _, tt := range table {
		t.Run(tt.Name, func(t *testing.T) {
			s := newWire(t, func(w http.ResponseWriter, n int) {
				if n >= len(tt.Answers) {
					t.Errorf("a request too many")
					return
				}
				a := tt.Answers[n]
				if a.Type == "" {
					a.Type = "application/json; charset=utf-8"
				}
				w.Header().Set("Content-Type", a.Type)
				w.WriteHeader(a.Status)
				if _, err := io.WriteString(w, a.Body); err != nil {
					t.Error(err)
				}
			})
			pairs := []string{"api_url", s.URL + "/v2/protocol", "max_requests_threshold_count", "1000"}
			if tt.Key != "" {
				pairs = append(pairs, "api_key", tt.Key)
			}
			i := open(t, Options{Builtin: tt.Module}, pairs...)
			commands := []string{}
			for range tt.Answers {
				got, err := i.WaitCommands(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range got {
					if c.Device.Priority != 0 {
						t.Errorf("priority %d", c.Device.Priority) // MM-12
					}
					commands = append(commands, c.Device.String()+" "+string(c.Data))
				}
			}
			var queries []string
			for _, r := range s.all() {
				checkHeader(t, r, "")
				if r.Method != http.MethodGet || r.Path != "/v2/protocol/command/acme/car_1" || r.Body != "" {
					t.Errorf("request %+v", r)
				}
				queries = append(queries, r.Query)
			}
			if !slices.Equal(queries, tt.Queries) {
				t.Errorf("queries\n%q\nwant\n%q", queries, tt.Queries)
			}
			if !slices.Equal(commands, tt.Commands) {
				t.Errorf("commands\n%q\nwant\n%q", commands, tt.Commands)
			}
		})
	}
}

// TestPollIsCancelled: a stop does not wait for a long poll (MM-60, MOD-15).
func TestPollIsCancelled(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("wait") == "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		close(held)
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer s.Close()
	defer close(release)
	i := open(t, Options{Builtin: IO}, "api_url", s.URL)
	if _, err := i.WaitCommands(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-held
		cancel()
	}()
	if _, err := i.WaitCommands(ctx); err == nil {
		t.Error("a poll that was given up returned no error")
	}
}
