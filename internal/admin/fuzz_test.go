package admin

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"external-server/internal/config"
	"external-server/internal/observe"
)

// FuzzPayload: any payload becomes valid JSON, without control characters in a
// text.
func FuzzPayload(f *testing.F) {
	for _, s := range []string{"", "{}", `{"a":1}`, "text", "\x00", "\xff", "žluť", "{\"a\":", "\x1b[2J", `"` + "\xc3" + `"`} {
		f.Add([]byte(s), len(s))
		f.Add([]byte(s), len(s)+1)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		p := payload(observe.Payload{Data: data, Size: size})
		raw, err := json.Marshal(p)
		if err != nil || !json.Valid(raw) {
			t.Fatalf("%v: %s", err, raw)
		}
		if s, ok := p.Data.(string); ok {
			for _, r := range s {
				if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f {
					t.Fatalf("%q in %q", r, s)
				}
			}
		}
	})
}

// FuzzRequest: whatever a stranger without token sends, he gets an answer that is
// no success where a token is needed, and errors are problem details.
func FuzzRequest(f *testing.F) {
	hub, err := observe.New(observe.Options{})
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{
		opts:     Options{Hub: hub, Config: config.Admin{Listen: "0.0.0.0:0"}},
		log:      slog.New(slog.DiscardHandler),
		requests: make(chan struct{}, maxRequests), streams: make(chan struct{}, maxStreams), stopping: make(chan struct{}),
	}
	s.Configure(config.Admin{Listen: "0.0.0.0:0", Tokens: []config.Token{{Name: "a", Role: config.RoleOperate, Token: config.NewSecret("secret")}}})
	handler := s.routes()
	f.Add("GET", "/api/v1/cars?limit=1", "Bearer x", "localhost", "")
	f.Add("POST", "/api/v1/cars/../cars/a/disconnect", "Bearer  secret", "h", "{}")
	f.Add("PUT", "/api/v1/log-levels/car", "bearer", "h:1", `{"level":"x"}`)
	f.Add("GET", "/healthz", "", "", "")
	f.Add("CONNECT", "/%2e%2e/web", "Bearer \x00", "[::1]", "x")
	f.Fuzz(func(t *testing.T, method, target, auth, host, body string) {
		r, err := http.NewRequest(method, "http://x/", http.NoBody)
		if err != nil {
			return
		}
		if r.URL, err = url.ParseRequestURI(target); err != nil || r.URL.Path == "" || r.URL.Path[0] != '/' {
			return
		}
		if token, ok := bearer(&http.Request{Header: http.Header{"Authorization": {auth}}}); ok && token == "secret" {
			return
		}
		r.Host, r.RemoteAddr = host, "192.0.2.1:1234"
		r.Header.Set("Authorization", auth)
		r.Header.Set(operateHeader, "1")
		r.Body = io.NopCloser(&limitedBody{text: body})
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		mustFail := len(r.URL.Path) > 4 && r.URL.Path[:5] == "/api/" || r.URL.Path == "/metrics" || r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		if mustFail && w.Code < 300 {
			t.Errorf("%s %s is answered %d without token", method, target, w.Code)
		}
		if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d with %q", method, target, w.Code, w.Header().Get("Content-Type"))
		}
	})
}

type limitedBody struct{ text string }

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.text == "" {
		return 0, io.EOF
	}
	n := copy(p, b.text)
	b.text = b.text[n:]
	return n, nil
}

// FuzzLogQuery: any query is read, or refused with words.
func FuzzLogQuery(f *testing.F) {
	for _, s := range []string{"", "level=INFO", "limit=9", "car=%00&q=x", "level=&limit=", "limit=-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := parseLogQuery(values)
		switch {
		case err != nil && err.Error() == "":
			t.Error("refused without words")
		case err == nil && (q.limit < 1 || q.limit > maxLines):
			t.Errorf("%q: limit %d", query, q.limit)
		}
	})
}
