package fleetapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/httpapi"
	"external-server/internal/module"
)

// FuzzStatus: whatever a device sends, nothing but one valid JSON text goes out,
// and what was valid and is accepted keeps its meaning.
func FuzzStatus(f *testing.F) {
	for _, s := range []string{goodStatus, `{"finishedStops":[]}`, `[1,2,"x",null,{"a":1e400}]`, "\"\xff\"", "{} {}", "", "\x00", `{"a":1,"a":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		for _, builtin := range []string{Mission, IO, Transparent} {
			k, err := kindOf(builtin)
			if err != nil {
				t.Fatal(err)
			}
			i := &Instance{kind: k}
			for _, isError := range []bool{false, true} {
				body, err := i.check(fleet.Device{Type: 1}, []byte(data), isError)
				if err != nil {
					continue
				}
				if !json.Valid([]byte(data)) || !json.Valid(body) || bytes.ContainsAny(body, "\n") {
					t.Fatalf("%q became %q", data, body)
				}
				again, err := i.check(fleet.Device{Type: 1}, body, isError)
				if err != nil || !bytes.Equal(again, body) {
					t.Fatalf("%q is not stable: %q, %v", body, again, err)
				}
			}
		}
	})
}

// FuzzCommands: whatever the API answers, a poll ends without panic, the cursor
// never goes back, and every command handed out is JSON for this module.
func FuzzCommands(f *testing.F) {
	good, err := json.Marshal([]httpapi.Message{command(1, 5, `{"action":"STOP","stops":[`+goodStation+`],"route":""}`), command(2, 6, `[{"outNum":1,"actType":2}]`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, s := range []string{`[]`, `[`, `{}`, `[null,1,{}]`, `[{"timestamp":1e99}]`, `[{"timestamp":-5,"device_id":{"module_id":2,"type":1e3,"role":"r"},"payload":{"data":{}}}]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		answers := roundTripper(func(r *http.Request) (*http.Response, error) {
			body := answer
			if r.URL.Query().Get("wait") == "" {
				body = []byte("[]")
			}
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(bytes.NewReader(body)), Request: r,
			}, nil
		})
		a, err := httpapi.NewClient(httpapi.ClientOptions{URL: "http://host", Transport: answers})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for _, builtin := range []string{Mission, IO, Transparent} {
			i := open(t, Options{Builtin: builtin, API: a}, "max_requests_threshold_count", "10000")
			for range 2 {
				before := i.poll.last
				commands, err := i.WaitCommands(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if i.poll.last < before || i.poll.last < 1 {
					t.Fatalf("cursor went from %d to %d", before, i.poll.last)
				}
				for _, c := range commands {
					if !json.Valid(c.Data) || c.Device.Module != i.kind.number || c.Device.Role == "" {
						t.Fatalf("command %+v", c)
					}
				}
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzRecord: a record is read back as it was written, and nothing else is
// mistaken for one.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{}`), "role", "name", uint32(1), true)
	f.Add([]byte("\x01\x00\x00\x00\x01r\x01n{}"), "", "", uint32(1<<32-1), false)
	f.Fuzz(func(t *testing.T, data []byte, role, name string, deviceType uint32, isError bool) {
		if e, err := parseRecord(data, 2); err == nil && !json.Valid(e.data) {
			t.Fatalf("%q was read as %+v", data, e)
		}
		if !json.Valid(data) {
			return
		}
		e := entry{device: fleet.Device{Module: 2, Type: deviceType, Role: role, Name: name}, isError: isError, at: time.UnixMilli(12345), data: data}
		got, err := parseRecord(e.appendRecord(nil), 2)
		if err != nil || got.device != e.device || got.isError != e.isError || !got.at.Equal(e.at) || !bytes.Equal(got.data, e.data) {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
	})
}

// FuzzSettings: a configuration is accepted or refused with an error, and what
// is accepted makes requests that stay within its URL.
func FuzzSettings(f *testing.F) {
	f.Add("http://http-api:8080/v2/protocol", "key", "3")
	f.Add("https://host/", "", "x")
	f.Add("http://a.b-c_d:1/x/y/", "k", "3x")
	f.Fuzz(func(t *testing.T, url, key, number string) {
		for _, builtin := range []string{Mission, IO} {
			k, err := kindOf(builtin)
			if err != nil {
				t.Fatal(err)
			}
			s, _, _, err := parseSettings(k, module.InstanceSpec{Car: car, Config: []module.Pair{{Key: keyURL, Value: url}, {Key: keyKey, Value: key}, {Key: keyCount, Value: number}}})
			if err == nil && (s.guard.count < 0 || s.key == "" || checkURL(s.url) != nil) {
				t.Fatalf("accepted %+v", s)
			}
		}
	})
}
