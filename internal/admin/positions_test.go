package admin

import (
	"encoding/json"
	"strings"
	"testing"

	"external-server/internal/fleet"
	"external-server/internal/observe"
)

func mission(data string) *observe.Device {
	return &observe.Device{
		Device: fleet.Device{Module: 1, Type: 1, Role: "driving", Name: "autonomy"}, Connected: true,
		Status: observe.Status{Payload: observe.Payload{Data: []byte(data), Size: len(data)}},
	}
}

func TestPosition(t *testing.T) {
	const at = `"position":{"latitude":49.5,"longitude":-16.25,"altitude":1}`
	for name, c := range map[string]struct{ data, want string }{
		"whole": {`{"state":"DRIVE","telemetry":{"speed":2.5,"fuel":0.5,` + at + `},"nextStop":{"name":"home","position":{"latitude":50,"longitude":-17}}}`,
			`"state":"DRIVE","latitude":49.5,"longitude":-16.25,"speed":2.5,"fuel":0.5,"next_stop":{"name":"home","latitude":50,"longitude":-17}}`},
		"no stop":                {`{"state":"IDLE","telemetry":{"speed":0,` + at + `},"nextStop":null}`, `"state":"IDLE","latitude":49.5,"longitude":-16.25,"speed":0}`},
		"a stop of another kind": {`{"state":"IDLE","telemetry":{` + at + `},"nextStop":"home"}`, `"state":"IDLE","latitude":49.5,"longitude":-16.25}`},
		"a stop nowhere":         {`{"telemetry":{` + at + `},"nextStop":{"name":"x","position":{"latitude":91,"longitude":0}}}`, `"latitude":49.5,"longitude":-16.25,"next_stop":{"name":"x"}}`},
		"no position":            {`{"state":"IDLE","telemetry":{"speed":0},"nextStop":null}`, ""},
		"half a position":        {`{"telemetry":{"position":{"latitude":1}}}`, ""},
		"off the earth":          {`{"telemetry":{"position":{"latitude":1,"longitude":180.5}}}`, ""},
		"text for a number":      {`{"telemetry":{"position":{"latitude":"1","longitude":2}}}`, ""},
		"not JSON":               {`hello`, ""},
		"an array":               {`[]`, ""},
		"nothing":                {``, ""},
	} {
		got, ok := position("car_a", mission(c.data))
		if ok != (c.want != "") {
			t.Errorf("%s: a position: %t", name, ok)
			continue
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if ok && !strings.HasSuffix(string(text), c.want) {
			t.Errorf("%s: %s, expected it to end with %s", name, text, c.want)
		}
	}
	cut := mission(`{"telemetry":{` + at + `}}`)
	cut.Status.Payload.Size++
	if _, ok := position("car_a", cut); ok {
		t.Error("a payload of which only the beginning is known has a position")
	}
}

// What a car sends never breaks the answer.
func FuzzPosition(f *testing.F) {
	f.Add([]byte(`{"state":"DRIVE","telemetry":{"speed":1e308,"position":{"latitude":1,"longitude":2}},"nextStop":{"position":{}}}`))
	f.Add([]byte(`{"telemetry":{"position":{"latitude":-0.0,"longitude":1e-320}},"nextStop":[[]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := position("car_a", mission(string(data)))
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
		if ok && (p.Latitude < -90 || p.Latitude > 90 || p.Longitude < -180 || p.Longitude > 180) {
			t.Fatalf("a position off the earth: %v", p)
		}
	})
}
