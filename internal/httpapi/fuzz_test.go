package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"external-server/internal/config"
	"external-server/internal/fleet"
)

// fuzzServer serves without a network.
func fuzzServer(f *testing.F) *Server {
	s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: tempStore(f), WaitTimeout: time.Millisecond}, MaxBody: 1 << 16})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			f.Error(err)
		}
	})
	return s
}

func serveFuzz(t *testing.T, s *Server, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	r.Host = "localhost"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code >= 500 {
		t.Fatalf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
	}
	if w.Code >= 400 && w.Code != 404 {
		var problem Error
		if r.Method != http.MethodHead && (json.Unmarshal(w.Body.Bytes(), &problem) != nil || problem.Status != w.Code || problem.Detail == "") {
			t.Fatalf("%d with body %s", w.Code, w.Body)
		}
	}
	return w
}

// FuzzPostStatus posts any body: it is refused with a reason, or stored and
// returned with the same meaning.
func FuzzPostStatus(f *testing.F) {
	good := message(1, 1, "r", "n", "STATUS", `{"a":[1,2.50,"\u0000ü"]}`)
	for _, seed := range []string{"[" + good + "]", "[" + good + "," + good + "]", "[]", "{}", "null", "[null]", "[[", "[" + strings.Replace(good, "1", "1e2", 1) + "]",
		strings.Replace("["+good+"]", "STATUS", "STATUS_ERROR", 1), strings.Replace("["+good+"]", "JSON", "BASE64", 1), "[" + good + "]x", "\xff", `[{"device_id":{"module_id":-0,"type":0,"role":"_","name":"\ud800"},"payload":{"message_type":"STATUS","encoding":"JSON","data":"\ud800"}}]`} {
		f.Add([]byte(seed))
	}
	s := fuzzServer(f)
	last := int64(0)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/v2/protocol/status/company/car", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		w := serveFuzz(t, s, r)
		got, err := s.API().Statuses(context.Background(), car1fuzz, Query{Since: last + 1})
		if err != nil && StatusOf(err) != 404 {
			t.Fatal(err)
		}
		if w.Code != 200 {
			if len(got) != 0 {
				t.Fatalf("%d, but %d statuses were stored", w.Code, len(got))
			}
			return
		}
		var sent []map[string]any
		if err := json.Unmarshal(body, &sent); err != nil || len(sent) != len(got) {
			t.Fatalf("accepted %s, %v; stored %d", body, err, len(got))
		}
		for i, m := range got {
			last = m.Timestamp
			var data any
			if err := json.Unmarshal(m.Payload.Data, &data); err != nil {
				t.Fatalf("stored data %s: %v", m.Payload.Data, err)
			}
			a, _ := json.Marshal(data)
			b, _ := json.Marshal(sent[i]["payload"].(map[string]any)["data"])
			if string(a) != string(b) {
				t.Fatalf("sent %s, stored %s", b, a)
			}
		}
	})
}

var car1fuzz = fleet.CarID{Company: "company", Car: "car"}

// FuzzQuery sends any path and query with any method.
func FuzzQuery(f *testing.F) {
	for _, seed := range [][3]string{{"GET", "/v2/protocol/status/company/car", "since=1&wait=true"}, {"POST", "/v2/protocol/command/company/car", ""}, {"GET", "/v2/protocol/cars", "since=-9223372036854775808"},
		{"GET", "/v2/protocol/available-devices/company/car", "module_id=1"}, {"HEAD", "/", "%zz"}, {"PUT", "/v2/protocol/ui", "a;b"}, {"GET", "/v2/protocol//", "wait"}, {"GET", "/v2/protocol/command/a/b", "wait=1&wait=0"}, {"", "", ""}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	s := fuzzServer(f)
	postStatus(f, s.API(), car1fuzz, status(1, 1, "r", `{}`))
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}, Body: http.NoBody, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "fuzz"}
		serveFuzz(t, s, r)
	})
}

// FuzzClientAnswer gives the client any answer.
func FuzzClientAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte("["+message(1, 1, "r", "n", "COMMAND", `{}`)+"]"))
	f.Add(200, "application/json", []byte(`[{"timestamp":1e3}]`))
	f.Add(404, "application/json", []byte("[]"))
	f.Add(500, "text/html", []byte("<html>"))
	f.Add(400, "application/problem+json", []byte(`{"title":1,"detail":[]}`))
	f.Fuzz(func(t *testing.T, code int, contentType string, body []byte) {
		if code < 200 || code > 599 || strings.ContainsAny(contentType, "\r\n\x00") {
			return
		}
		c := newTestClient(t, ClientOptions{URL: "http://x", Transport: handlerTransport{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(code)
			_, _ = w.Write(body)
		})}})
		messages, err := c.Commands(context.Background(), car1, Query{})
		if err == nil && (code >= 300 || !json.Valid(body)) {
			t.Fatalf("%d %q became %v", code, body, messages)
		}
		if code >= 300 && StatusOf(err) != code {
			t.Fatalf("%d became %v", code, err)
		}
	})
}

// FuzzKeysFile reads any keys file.
func FuzzKeysFile(f *testing.F) {
	f.Add([]byte(`{"keys":[{"name":"a","sha256":"` + strings.Repeat("ab", 32) + `","created":"2025-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"keys":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys("file", text)
		if err != nil && len(keys) > 0 {
			t.Fatal("keys with an error")
		}
		for _, k := range keys {
			if len(k.SHA256) != 64 || k.Name == "" {
				t.Fatalf("%+v", k)
			}
		}
	})
}
