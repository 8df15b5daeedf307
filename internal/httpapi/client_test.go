package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
)

func newTestClient(t testing.TB, o ClientOptions) *Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestClientHidesTheKey makes requests fail in every way and looks for the key.
func TestClientHidesTheKey(t *testing.T) {
	const key = "planted+secret/key"
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	handlers := map[string]http.HandlerFunc{
		"401 that repeats the URL": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.URL.String()+" "+key, http.StatusUnauthorized)
		},
		"problem that repeats it": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			_, _ = fmt.Fprintf(w, `{"title":"Bad %s","detail":"at %s"}`, key, r.URL)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusFound)
		},
		"hang up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "[")
		},
		"no JSON": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, r.URL.String())
		},
		"other type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "[]")
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "["+strings.Repeat(" ", 2000)+"]")
		},
		"no answer":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"unknown host": nil,
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			url := "http://" + closed.Addr().String() + BasePath
			if handler != nil {
				server := httptest.NewServer(handler)
				defer server.Close()
				url = server.URL + BasePath
			}
			timeout := time.Duration(0) // the client's own
			if name == "no answer" {
				timeout = 300 * time.Millisecond
			}
			c := newTestClient(t, ClientOptions{URL: url, APIKey: config.NewSecret(key), MaxResponse: 1000, Timeout: timeout})
			_, err := c.Commands(context.Background(), car1, Query{})
			if err == nil {
				t.Fatal("no error")
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				for _, form := range []string{key, "planted"} {
					if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, form) {
						t.Errorf("the error contains %q: %s", form, text)
					}
				}
			}
			if !strings.Contains(err.Error(), "GET "+url+"/command/company/car_1") {
				t.Errorf("error %q", err)
			}
			if name == "no answer" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("no timeout: %v", err)
			}
			if name == "redirect" && StatusOf(err) != 302 {
				t.Errorf("redirect: %v", err)
			}
		})
	}
}

// TestClientReadsWhatLibrariesCrashOn (MM-14).
func TestClientReadsWhatLibrariesCrashOn(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.RawQuery; got != "since=5&wait=true" || r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "" {
			t.Errorf("query %s, header %v", got, r.Header)
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `[{"timestamp":5},{"timestamp":6,"device_id":null,"payload":{"data":1}},{"timestamp":7,"device_id":{"module_id":1},"payload":{"data":null}},
			{"timestamp":8,"device_id":{"module_id":1,"type":2,"role":"r","name":"n","more":1},"payload":{"message_type":"COMMAND","encoding":"JSON","data":5}}]`)
	}))
	defer server.Close()
	c := newTestClient(t, ClientOptions{URL: server.URL})
	got, err := c.Commands(context.Background(), car1, Query{Since: 5, Wait: true})
	if err != nil || len(got) != 4 {
		t.Fatalf("%v, %v", got, err)
	}
	for i, m := range got {
		if m.Timestamp != int64(5+i) || (m.Payload.Data == nil) != (i < 3) {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}

func TestClientURLs(t *testing.T) {
	for _, url := range []string{"", "host:8080", "ftp://host/", "http://", "http://user:planted@host/", "http://host/?a=b", "http://host/#a", "http://[/"} {
		if c, err := NewClient(ClientOptions{URL: url}); err == nil {
			c.Close()
			t.Errorf("%q was accepted", url)
		} else if strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: error %q", url, err)
		}
	}
}
