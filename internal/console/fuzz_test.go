package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

// FuzzDecode: whatever is on the broker becomes one harmless line and valid JSON.
func FuzzDecode(f *testing.F) {
	status, err := protocol.EncodeClient(fleet.ClientMessage{Kind: fleet.ClientStatus, SessionID: "s1", Counter: 3, State: fleet.StateRunning,
		Device: fleet.Device{Module: 1, Role: "r\x1b[2J", Name: "n"}, Data: []byte("\xff\x00")}, fleet.CarID{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("acme/car1/module_gateway", status)
	f.Add("acme/car1/external_server", protocol.EncodeServer(fleet.ServerMessage{Kind: fleet.ServerCommand, SessionID: "s1", Counter: 4, Data: []byte(`{"a":"\n"}`)}))
	f.Add("acme/car1/external_server_disconnect", []byte(nil))
	f.Add("acme/car1/module_gateway", []byte{0xff})
	f.Add("a/b", []byte("x"))
	f.Fuzz(func(t *testing.T, topic string, raw []byte) {
		s, ok := Decode(topic, raw)
		if !ok {
			return
		}
		s.At = time.Unix(0, 0)
		if s.Kind == "" {
			t.Error("a message without kind")
		}
		line := s.Line(false)
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("a line with control characters: %q", line)
		}
		made, err := json.Marshal(s)
		if err != nil || !json.Valid(made) || bytes.ContainsRune(made, '\n') {
			t.Errorf("%v: %s", err, made)
		}
		checkCleanJSON(t, made)
	})
}

// checkCleanJSON checks that JSON says the same after CleanJSON, in printable characters.
func checkCleanJSON(t *testing.T, raw []byte) {
	t.Helper()
	clean := CleanJSON(raw)
	if at := bytes.IndexFunc(clean, func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune("\n\t\r", r) }); at >= 0 || !utf8.Valid(clean) {
		t.Errorf("%q has a character at %d that is not printable", clean, at)
	}
	var before, after any
	if json.Unmarshal(raw, &before) != nil {
		return
	}
	if err := json.Unmarshal(clean, &after); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("%s became %s: %v", raw, clean, err)
	}
}

func FuzzCleanJSON(f *testing.F) {
	f.Add([]byte("{\"a\": \"\u009b31m \u0085 \u202e \U000e0001 \x7f \xff\", \"b\": [1.50, null]}\n"))
	f.Fuzz(checkCleanJSON)
}

// One role of thousands of characters widens neither a table nor a line.
func TestLongNamesAreCut(t *testing.T) {
	long := strings.Repeat("r", 2000)
	table := newTable(false, 1)
	table.row(device{Module: 1, Role: long, Name: long}.String(), "yes", "7")
	table.row(long, "x", "y")
	var out strings.Builder
	if err := table.write(&out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 2*cellWidth {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	line := eventLine(Sent{Kind: "device_joined", Data: []byte(`{"device":"1/0/` + long + `/` + long + `","text":"` + long + `"}`)}, false)
	if len(line) > 600 || !strings.Contains(line, "/rrr") {
		t.Errorf("an event of %d characters: %s", len(line), line)
	}
}

// FuzzReadEvents: any stream is read to its end or refused, and ends when the
// reader says so.
func FuzzReadEvents(f *testing.F) {
	f.Add("retry: 2000\n\nid: a-1\nevent: connect\ndata: {\"car\":\"x\"}\n\n:\n\n", 1)
	f.Add("data\ndata: \ndata: b\n\n", 0)
	f.Add("event: \x1b[2J\ndata: x\n\n", 3)
	enough := errors.New("enough")
	f.Fuzz(func(t *testing.T, text string, most int) {
		n := 0
		err := readEvents(strings.NewReader(text), func(ev Sent) error {
			if line := eventLine(ev, false); strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("a line with control characters: %q", line)
			}
			if n++; n > most {
				return enough
			}
			return nil
		})
		var stop stopped
		if n > most && most >= 0 && (!errors.As(err, &stop) || !errors.Is(stop.err, enough)) {
			t.Errorf("%v, want %v", err, enough)
		}
	})
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"plain žluť": "plain žluť", "\x1b[31m": `\x1b[31m`, "a\nb": `a\x0ab`, "\u202e": `\u202e`, "\xff": `\ufffd`, "": "",
	} {
		if got := Clean(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1500 * time.Microsecond: "2ms", 59 * time.Second: "59s", 61 * time.Second: "1m01s",
		25 * time.Hour: "1d01h", 61 * time.Minute: "1h01m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
