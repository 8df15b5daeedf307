package capture

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/protocol"
)

const recorded = "testdata/gateway-session.jsonl"

func TestRecordedSession(t *testing.T) {
	all, err := ReadFile(recorded)
	if err != nil {
		t.Fatal(err)
	}
	client, server := Client(all), Server(all)
	if len(all) != 390 || len(client) != 195 || len(server) != 195 {
		t.Fatalf("read %d messages, %d of the gateway and %d of the server; want 390, 195 and 195", len(all), len(client), len(server))
	}
	if car := (fleet.CarID{Company: "bringauto", Car: "car_cmd_ok"}); all[0].Car != car {
		t.Errorf("car %v, want %v", all[0].Car, car)
	}
	if all[0].At != 0 || all[1].At != time.Millisecond {
		t.Errorf("times %v and %v, want 0 and 1ms", all[0].At, all[1].At)
	}
	for i, m := range client {
		if _, err := protocol.DecodeClient(m.Payload); err != nil {
			t.Errorf("message %d of the gateway: %v", i, err)
		}
	}
	for i, m := range server {
		if _, err := protocol.DecodeServer(m.Payload); err != nil {
			t.Errorf("message %d of the server: %v", i, err)
		}
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	const good = `{"t_ms": 5, "topic": "c/a/module_gateway", "payload_hex": ""}` + "\n"
	for _, test := range []struct{ name, text, want string }{
		{"not json", good + "hello", `x.jsonl:2: expected a JSON object`},
		{"two objects", strings.TrimSpace(good) + good, `x.jsonl:1: expected one JSON object on the line`},
		{"unknown field", `{"t": 1}`, `unknown field "t"`},
		{"no time", `{"topic": "c/a/module_gateway", "payload_hex": ""}`, `x.jsonl:1: t_ms is missing`},
		{"wrong type", `{"t_ms": "1", "topic": "c/a/module_gateway", "payload_hex": ""}`, `t_ms`},
		{"negative time", `{"t_ms": -1, "topic": "c/a/module_gateway", "payload_hex": ""}`, `t_ms is -1`},
		{"huge time", `{"t_ms": 9000000000000000000, "topic": "c/a/module_gateway", "payload_hex": ""}`, `t_ms is 9000000000000000000`},
		{"back in time", good + `{"t_ms": 4, "topic": "c/a/module_gateway", "payload_hex": ""}`, `x.jsonl:2: t_ms 4 is less than 5`},
		{"no topic", `{"t_ms": 1, "payload_hex": ""}`, `topic is missing`},
		{"other topic", `{"t_ms": 1, "topic": "c/a/b", "payload_hex": ""}`, `topic "c/a/b": expected`},
		{"short topic", `{"t_ms": 1, "topic": "module_gateway", "payload_hex": ""}`, `topic "module_gateway": expected`},
		{"no car", `{"t_ms": 1, "topic": "c//module_gateway", "payload_hex": ""}`, `topic "c//module_gateway": expected`},
		{"no payload", `{"t_ms": 1, "topic": "c/a/module_gateway"}`, `payload_hex is missing`},
		{"odd payload", `{"t_ms": 1, "topic": "c/a/module_gateway", "payload_hex": "0"}`, `payload_hex of topic "c/a/module_gateway"`},
		{"not hex", `{"t_ms": 1, "topic": "c/a/module_gateway", "payload_hex": "zz"}`, `payload_hex of topic "c/a/module_gateway"`},
		{"nothing", "\n \n", `x.jsonl: no messages`},
		{"too long", good + strings.Repeat(" ", maxLine+1), `x.jsonl:2: line is longer`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Read(strings.NewReader(test.text), "x.jsonl")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one containing %q", err, test.want)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.jsonl")
	if _, err := ReadFile(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one naming %s", err, path)
	}
}

// FuzzRead checks that any text is read or refused with an error that names the
// file, and that what was read survives writing and reading again.
func FuzzRead(f *testing.F) {
	raw, err := os.ReadFile(recorded)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:bytes.IndexByte(raw, '\n')+1])
	f.Add([]byte(`{"t_ms": 1, "topic": "c/a/external_server_disconnect", "payload_hex": ""}` + "\n\n"))
	f.Add([]byte(`{"t_ms": 1e3, "topic": "c/a/external_server", "payload_hex": "0A"}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		messages, err := Read(bytes.NewReader(text), "fuzz.jsonl")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz.jsonl") {
				t.Fatalf("error %q does not name the file", err)
			}
			return
		}
		var again bytes.Buffer
		for _, m := range messages {
			line, err := json.Marshal(map[string]any{"t_ms": m.At.Milliseconds(), "topic": m.Topic, "payload_hex": hex.EncodeToString(m.Payload)})
			if err != nil {
				t.Fatal(err)
			}
			again.Write(append(line, '\n'))
		}
		second, err := Read(&again, "again.jsonl")
		if err != nil || len(second) != len(messages) {
			t.Fatalf("read %d messages again, want %d: %v", len(second), len(messages), err)
		}
		for i, m := range messages {
			if s := second[i]; s.At != m.At || s.Topic != m.Topic || s.Car != m.Car || s.Direction != m.Direction || !bytes.Equal(s.Payload, m.Payload) {
				t.Fatalf("message %d is %+v, read again %+v", i, m, s)
			}
		}
	})
}
