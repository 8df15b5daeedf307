package fleetapi

import (
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"external-server/internal/support/testlog"
	"external-server/internal/support/testwait"
)

func slogToLog(l *testlog.Buffer) *stdlog.Logger { return stdlog.New(l, "", 0) }

// TestKeyStaysSecret: whatever goes wrong, neither log nor errors show the key.
func TestKeyStaysSecret(t *testing.T) {
	const key, escaped = "SE CRET&1", "SE+CRET%261"
	var log testlog.Buffer
	check := func(t *testing.T, err error) {
		t.Helper()
		text := log.String()
		if err != nil {
			text += err.Error()
		}
		if strings.Contains(text, key) || strings.Contains(text, escaped) || strings.Contains(text, "CRET") {
			t.Errorf("the key is in %s", text)
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	answers := map[string]func(w http.ResponseWriter, r *http.Request){
		"echoes the request": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such key in "+r.URL.String()+" "+r.URL.Query().Get("api_key"), http.StatusUnauthorized)
		},
		"echoes in JSON": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"detail":"key ` + r.URL.Query().Get("api_key") + `"}`)) // the client looks
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
		},
		"hangs up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"answers nonsense": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("[" + r.URL.String())) // the client looks
		},
	}
	urls := map[string]string{"nobody listens": "http://" + closed.Addr().String()}
	for name, h := range answers {
		s := httptest.NewServer(http.HandlerFunc(h))
		defer s.Close()
		urls[name] = s.URL
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			i := open(t, Options{Builtin: IO, Logger: log.Logger()}, "api_url", url, "api_key", key)
			for range 4 {
				_, err := i.WaitCommands(t.Context())
				check(t, err)
			}
			forward(t, i, "a", 1, 2)
			testwait.Until(t, "an attempt is made", func() bool {
				s := i.Stats()
				return s.Retries+s.Refused+s.Posted > 0
			})
			check(t, nil)
			if !strings.Contains(log.String(), "level=WARN") {
				t.Error("the log does not tell that something is wrong")
			}
		})
	}
}
