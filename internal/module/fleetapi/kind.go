package fleetapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kind is what distinguishes the three modules.
type kind struct {
	name   string
	number int32
	// strictNumbers: integers of the configuration may not be followed by other
	// characters (MM-9).
	strictNumbers bool
	supports      func(deviceType uint32) bool
	// checkStatus and checkError look at a parsed status or error message; nil
	// checks nothing.
	checkStatus, checkError func(any) error
	// reportsErrors: invalid statuses are NOT_OK (MM-22). The others answer OK
	// whatever happens (MM-32, MM-41).
	reportsErrors bool
	// command checks the data of a command and returns the bytes for the car.
	command func(any) ([]byte, error)
	// discardsDelayed: a poll that the guard delays yields nothing and is
	// repeated (MM-28).
	discardsDelayed bool
}

// Names of the modules, as in the key "builtin".
const (
	Mission     = "mission"
	IO          = "io"
	Transparent = "transparent"
)

func kindOf(name string) (*kind, error) {
	switch name {
	case Mission:
		return &kind{
			name: Mission, number: 1, strictNumbers: true,
			supports:    func(t uint32) bool { return t == 1 }, // MM-20
			checkStatus: checkMissionStatus, checkError: checkMissionError,
			reportsErrors: true, command: missionCommand, discardsDelayed: true,
		}, nil
	case IO:
		return &kind{
			name: IO, number: 2,
			supports: func(t uint32) bool { return t >= 1 && t <= 4 }, // MM-30
			command:  ioCommand,
		}, nil
	case Transparent:
		return &kind{
			name: Transparent, number: 3,
			supports: func(uint32) bool { return true }, // MM-40
			command:  compact,                           // MM-42
		}, nil
	}
	return nil, fmt.Errorf("%q is not a built-in module; expected %q, %q or %q", name, Mission, IO, Transparent)
}

func object(v any, what string) (map[string]any, error) {
	o, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s is %s; expected an object", what, typeName(v))
	}
	return o, nil
}

// member returns a member that has to be there.
func member(o map[string]any, name, expected string) (any, error) {
	v, ok := o[name]
	if !ok {
		return nil, fmt.Errorf("member %s is missing; expected %s", name, expected)
	}
	return v, nil
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "an array"
	}
	return "an object"
}

func oneOf(o map[string]any, name string, words ...string) error {
	expected := fmt.Sprintf("one of %q", words)
	v, err := member(o, name, expected)
	if err != nil {
		return err
	}
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%s is %s; expected %s", name, typeName(v), expected)
	}
	if !slices.Contains(words, s) {
		return fmt.Errorf("%s is %q; expected %s", name, printable(s), expected)
	}
	return nil
}

// checkMissionStatus is MM-21.
func checkMissionStatus(v any) error {
	o, err := object(v, "the status")
	if err != nil {
		return err
	}
	if err := oneOf(o, "state", "IDLE", "DRIVE", "IN_STOP", "OBSTACLE", "ERROR"); err != nil {
		return err
	}
	t, err := member(o, "telemetry", "an object with a number speed")
	if err != nil {
		return err
	}
	telemetry, err := object(t, "telemetry")
	if err != nil {
		return err
	}
	if err := number(telemetry, "telemetry.", "speed"); err != nil {
		return err
	}
	_, err = member(o, "nextStop", "a station or null")
	return err
}

// checkMissionError is MM-23.
func checkMissionError(v any) error {
	o, err := object(v, "the error message")
	if err != nil {
		return err
	}
	stops, err := member(o, "finishedStops", "an array of stations")
	if err != nil {
		return err
	}
	if _, ok := stops.([]any); !ok {
		return fmt.Errorf("finishedStops is %s; expected an array of stations", typeName(stops))
	}
	return nil
}

// missionCommand is MM-25 and MM-27.
func missionCommand(v any) ([]byte, error) {
	o, err := object(v, "the command")
	if err != nil {
		return nil, err
	}
	if err := oneOf(o, "action", "NO_ACTION", "STOP", "START"); err != nil {
		return nil, err
	}
	s, err := member(o, "stops", "an array of stations")
	if err != nil {
		return nil, err
	}
	// What a stop holds is between the user of the API and the car: there are cars
	// that take one without altitude, or by its name alone.
	if _, ok := s.([]any); !ok {
		return nil, fmt.Errorf("stops is %s; expected an array of stations", typeName(s))
	}
	route, err := member(o, "route", "a string")
	if err != nil {
		return nil, err
	}
	if _, ok := route.(string); !ok {
		return nil, fmt.Errorf("route is %s; expected a string", typeName(route))
	}
	return compact(v)
}

func number(o map[string]any, prefix, name string) error {
	if _, ok := o[name].(json.Number); !ok {
		return fmt.Errorf("%s%s is missing or no number; expected a number", prefix, name)
	}
	return nil
}

// ioCommand is MM-34 to MM-36.
func ioCommand(v any) ([]byte, error) {
	var items []any
	switch v := v.(type) {
	case []any:
		items = v
	case map[string]any: // an object counts as the array of its members
		for _, name := range slices.Sorted(maps.Keys(v)) {
			items = append(items, v[name])
		}
	default:
		return nil, fmt.Errorf("the command is %s; expected an array of {\"outNum\": n, \"actType\": a}", typeName(v))
	}
	if len(items) == 0 {
		return []byte("null"), nil
	}
	type action struct {
		ActType uint32 `json:"actType"`
		OutNum  uint8  `json:"outNum"`
	}
	actions := make([]action, len(items))
	for i, item := range items {
		o, err := object(item, fmt.Sprintf("element %d", i))
		if err != nil {
			return nil, err
		}
		out, err := numberOf(o, "outNum")
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		act, err := numberOf(o, "actType")
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		actions[i] = action{ActType: uint32(act), OutNum: uint8(out)} // reduced without range check (MM-34)
	}
	return compact(actions)
}

func numberOf(o map[string]any, name string) (int64, error) {
	v, err := member(o, name, "a number")
	if err != nil {
		return 0, err
	}
	n, ok := integer(v)
	if !ok {
		if _, isNumber := v.(json.Number); isNumber {
			return 0, errors.New(name + " is too large; expected an integer of 64 bits")
		}
		return 0, fmt.Errorf("%s is %s; expected a number", name, typeName(v))
	}
	return n, nil
}

// maxQuoted bounds what is quoted of a stranger's text, in bytes.
const maxQuoted = 300

// printable makes one bounded line out of what a stranger wrote.
func printable(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(c rune) bool { return c <= ' ' || c == 0x7f }), " ")
	if len(s) > maxQuoted {
		s = strings.ToValidUTF8(s[:maxQuoted], "") + "…"
	}
	return s
}
