package server

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
	"external-server/internal/httpapi"
	"external-server/internal/httpapi/store"
	"external-server/internal/support/apitest"
	"external-server/internal/support/testwait"
)

// fuzzServer serves without a network.
func fuzzServer(f *testing.F) *Server {
	s, err := New(context.Background(), Options{Config: config.HTTPAPI{Listen: "127.0.0.1:0", Store: apitest.TempStore(f), WaitTimeout: time.Millisecond}, MaxBody: 1 << 16})
	if err != nil {
		f.Fatal(err)
	}
	testwait.Until(f, "the store is loaded", func() bool { return s.Stats().StoreFault != store.FaultLoading })
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
		var problem httpapi.Error
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
		got, err := s.API().Statuses(context.Background(), car1fuzz, httpapi.Query{Since: last + 1})
		if err != nil && httpapi.StatusOf(err) != 404 {
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
	postStatus(f, s.API(), car1fuzz, apitest.Status(1, 1, "r", `{}`))
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}, Body: http.NoBody, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "fuzz"}
		serveFuzz(t, s, r)
	})
}
