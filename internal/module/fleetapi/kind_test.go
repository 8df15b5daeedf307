package fleetapi

import (
	"errors"
	"strings"
	"testing"

	"external-server/internal/module"
	"external-server/internal/support/testlog"
)

const (
	goodStatus  = `{"state":"DRIVE","telemetry":{"speed":1.5,"fuel":0.5,"position":{"latitude":1,"longitude":2,"altitude":3}},"nextStop":null}`
	goodStation = `{"name":"A","position":{"latitude":49.1,"longitude":16.2,"altitude":0}}`
)

// TestChecks covers MM-2, MM-20 to MM-25, MM-32, MM-34, MM-35, MM-41. An empty
// want means that the status is posted.
func TestChecks(t *testing.T) {
	tests := []struct {
		builtin, name, data string
		isError             bool
		want                string
	}{
		{Mission, "a status", goodStatus, false, ""},
		{Mission, "next stop is a station", `{"state":"IN_STOP","telemetry":{"speed":0},"nextStop":` + goodStation + `}`, false, ""},
		{Mission, "no JSON", `{`, false, "not JSON"},
		{Mission, "empty", ``, false, "empty"},
		{Mission, "two texts", goodStatus + `{}`, false, "more follows"},
		{Mission, "NUL behind", goodStatus + "\x00", false, "more follows"},
		{Mission, "no UTF-8", "\"\xff\"", false, "UTF-8"},
		{Mission, "an array", `[]`, false, "the status is an array; expected an object"},
		{Mission, "no state", `{"telemetry":{"speed":0},"nextStop":null}`, false, "member state is missing"},
		{Mission, "unknown state", `{"state":"FLY","telemetry":{"speed":0},"nextStop":null}`, false, `state is "FLY"; expected one of ["IDLE" "DRIVE" "IN_STOP" "OBSTACLE" "ERROR"]`},
		{Mission, "state is a number", `{"state":1,"telemetry":{"speed":0},"nextStop":null}`, false, "state is a number"},
		{Mission, "no telemetry", `{"state":"IDLE","nextStop":null}`, false, "telemetry is missing"},
		{Mission, "telemetry is no object", `{"state":"IDLE","telemetry":1,"nextStop":null}`, false, "telemetry is a number"},
		{Mission, "speed is a string", `{"state":"IDLE","telemetry":{"speed":"0"},"nextStop":null}`, false, "telemetry.speed"},
		{Mission, "no next stop", `{"state":"IDLE","telemetry":{"speed":0}}`, false, "nextStop is missing"},
		{Mission, "an error message", `{"finishedStops":[` + goodStation + `]}`, true, ""},
		{Mission, "no finished stops", `{}`, true, "finishedStops is missing"},
		{Mission, "finished stops are no array", `{"finishedStops":{}}`, true, "finishedStops is an object"},
		{IO, "what devices send", `[[{"inNum":1,"inSt":0}],[{"outNum":1,"outErr":0,"outSt":1}],{"butPr":false}]`, false, ""},
		{IO, "any JSON", `7`, false, ""},
		{IO, "an error message", `{"aggregatedButtonPresses":3}`, true, ""},
		{IO, "no JSON", `x`, false, "not JSON"},
		{Transparent, "a string", `"AQ=="`, false, ""},
		{Transparent, "one byte", "\x01", true, "not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.builtin+" "+tt.name, func(t *testing.T) {
			var posted testlog.Buffer
			i := open(t, Options{Builtin: tt.builtin, API: &faultyAPI{}, Logger: posted.Logger()})
			call := i.ForwardStatus
			if tt.isError {
				call = i.ForwardError
			}
			err := call(t.Context(), device(i.kind.number, "r"), []byte(tt.data))
			if invalid := i.Stats().Invalid == 1; invalid != (tt.want != "") {
				t.Fatalf("counted as invalid: %v", invalid)
			}
			if tt.want == "" || tt.builtin != Mission {
				if err != nil {
					t.Fatalf("error %v; these modules answer OK", err)
				}
				if !strings.Contains(posted.String(), tt.want) {
					t.Fatalf("log %q does not say %q", posted.String(), tt.want)
				}
				return
			}
			var code *module.CallError
			if !errors.As(err, &code) || code.Code != module.CodeNotOK || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v; want NOT_OK with %q", err, tt.want)
			}
			if op := map[bool]string{false: "forward_status", true: "forward_error_message"}[tt.isError]; code.Op != op {
				t.Fatalf("error of %s, want %s", code.Op, op)
			}
		})
	}
}

// TestCommandData covers MM-25, MM-27, MM-34 to MM-36, MM-42.
func TestCommandData(t *testing.T) {
	tests := []struct{ builtin, name, data, want, fault string }{
		{Mission, "re-serialised", `{ "stops": [` + goodStation + `], "route": "é<b>&", "action": "START", "x": 1e2}`,
			`{"action":"START","route":"é<b>&","stops":[{"name":"A","position":{"altitude":0,"latitude":49.1,"longitude":16.2}}],"x":1e2}`, ""},
		{Mission, "large integers and doubles keep their digits", `{"action":"STOP","stops":[],"route":"","a":9007199254740993,"b":0.1,"c":1.7976931348623157e308}`,
			`{"a":9007199254740993,"action":"STOP","b":0.1,"c":1.7976931348623157e308,"route":"","stops":[]}`, ""},
		{Mission, "stations is not stops", `{"action":"START","stations":[],"route":"r"}`, "", "member stops is missing"},
		{Mission, "unknown action", `{"action":"GO","stops":[],"route":"r"}`, "", `"NO_ACTION" "STOP" "START"`},
		{Mission, "no route", `{"action":"STOP","stops":[]}`, "", "route is missing"},
		{Mission, "route is null", `{"action":"STOP","stops":[],"route":null}`, "", "route is null; expected a string"},
		{Mission, "stops is an object", `{"action":"STOP","stops":{},"route":"r"}`, "", "stops is an object"},
		{Mission, "stops of any kind", `{"action":"START","stops":[{"name":"A","position":{"latitude":1,"longitude":2}},{"name":"B","position":{"altitude":null}},{"name":"C"},{"position":{}},{},null,"D",7],"route":""}`,
			`{"action":"START","route":"","stops":[{"name":"A","position":{"latitude":1,"longitude":2}},{"name":"B","position":{"altitude":null}},{"name":"C"},{"position":{}},{},null,"D",7]}`, ""},
		{Mission, "action is null", `{"action":null,"stops":[],"route":"r"}`, "", "action is null"},
		{Mission, "no action", `{"stops":[],"route":"r"}`, "", "member action is missing"},
		{Mission, "stops is null", `{"action":"STOP","stops":null,"route":"r"}`, "", "stops is null"},
		{Mission, "a string", `"x"`, "", "the command is a string; expected an object"},
		{IO, "generated anew", `[{"outNum": 1, "actType": 2, "more": "x"},{"actType":0,"outNum":2}]`, `[{"actType":2,"outNum":1},{"actType":0,"outNum":2}]`, ""},
		{IO, "reduced to 8 and 32 bits", `[{"outNum":257,"actType":4294967297},{"outNum":-1,"actType":-1}]`, `[{"actType":1,"outNum":1},{"actType":4294967295,"outNum":255}]`, ""},
		{IO, "beyond 63 bits", `[{"outNum":18446744073709551615,"actType":9223372036854775810}]`, `[{"actType":2,"outNum":255}]`, ""},
		{IO, "actType that no output knows", `[{"outNum":1,"actType":9}]`, `[{"actType":9,"outNum":1}]`, ""},
		{IO, "a member is null", `[{"outNum":1,"actType":null}]`, "", "actType is null"},
		{IO, "null", `null`, "", "the command is null"},
		{IO, "an object of numbers", `{"outNum":1,"actType":1}`, "", "element 0 is a number"},
		{IO, "booleans and fractions", `[{"outNum":true,"actType":1.9}]`, `[{"actType":1,"outNum":1}]`, ""},
		{IO, "empty array", `[]`, `null`, ""},
		{IO, "empty object", `{}`, `null`, ""},
		{IO, "an object of actions", `{"b":{"outNum":2,"actType":0},"a":{"outNum":1,"actType":0}}`, `[{"actType":0,"outNum":1},{"actType":0,"outNum":2}]`, ""},
		{IO, "a string", `"on"`, "", "expected an array"},
		{IO, "strings inside", `[{"outNum":"1","actType":1}]`, "", "element 0: outNum is a string; expected a number"},
		{IO, "member missing", `[{"outNum":1}]`, "", "actType is missing"},
		{IO, "no numbers of 64 bits", `[{"outNum":1e300,"actType":1}]`, "", "too large"},
		{IO, "array in array", `[[1]]`, "", "element 0 is an array"},
		{Transparent, "anything", ` {"b":[1, 2.50,"x"] , "a":null}`, `{"a":null,"b":[1,2.50,"x"]}`, ""},
		{Transparent, "a number", `1e2`, `1e2`, ""},
		{Transparent, "a string is not decoded", `"AQID"`, `"AQID"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.builtin+" "+tt.name, func(t *testing.T) {
			k, err := kindOf(tt.builtin)
			if err != nil {
				t.Fatal(err)
			}
			v, err := parse([]byte(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.command(v)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Fatalf("error %v; want %q", err, tt.fault)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Fatalf("%s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	for builtin, supported := range map[string][]uint32{Mission: {1}, IO: {1, 2, 3, 4}, Transparent: {0, 1, 2, 3, 4, 5, 6, 4294967295}} {
		m, err := New(Options{Builtin: builtin})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []uint32{0, 1, 2, 3, 4, 5, 6, 4294967295} {
			want := false
			for _, s := range supported {
				want = want || s == n
			}
			if m.Supports(n) != want { // MM-20, MM-30, MM-40
				t.Errorf("%s: device type %d supported: %v", builtin, n, !want)
			}
		}
	}
	if _, err := New(Options{Builtin: "teleop"}); err == nil || !strings.Contains(err.Error(), `"mission", "io" or "transparent"`) {
		t.Errorf("unknown module: %v", err)
	}

	i := open(t, Options{Builtin: Mission, API: &faultyAPI{}})
	d := device(1, "a")
	var code *module.CallError
	for range 2 { // MM-7: duplicates are kept
		if err := i.DeviceConnected(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	renamed := d
	renamed.Name = "other"
	if err := i.DeviceDisconnected(t.Context(), 0, renamed); !errors.As(err, &code) || code.Code != module.CodeNotOK {
		t.Fatalf("a device of another name: %v", err)
	}
	for range 2 {
		if err := i.DeviceDisconnected(t.Context(), 1, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.DeviceDisconnected(t.Context(), 0, d); !errors.As(err, &code) || code.Code != module.CodeNotOK {
		t.Fatalf("a device that is gone: %v", err)
	}
	wrong := d
	wrong.Type = 2
	if err := i.ForwardStatus(t.Context(), wrong, []byte(goodStatus)); !errors.As(err, &code) || code.Code != module.CodeNotOK {
		t.Fatalf("MM-22, device type 2: %v", err)
	}
}
