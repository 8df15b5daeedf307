package fleetapi

import (
	"context"
	"testing"

	"external-server/internal/httpapi"
)

// A context that goes on where the one of an earlier process has stopped gets what was
// stored since, and nothing twice; the position comes with the last command of a batch.
func TestPollsGoOn(t *testing.T) {
	stored := []httpapi.Message{command(3, 900, `"old"`), command(3, 1000, `"a"`), command(3, 1001, `"b"`)}
	a := &faultyAPI{poll: func(_ context.Context, q httpapi.Query) ([]httpapi.Message, error) {
		var out []httpapi.Message
		for _, m := range stored {
			if m.Timestamp >= q.Since {
				out = append(out, m)
			}
		}
		return out, nil
	}}
	first := open(t, Options{Builtin: Transparent, API: a})
	if p := first.Position(); p != nil {
		t.Errorf("position %v before the first poll", p)
	}
	if commands, err := first.WaitCommands(t.Context()); err != nil || len(commands) != 0 { // the flush
		t.Fatalf("%v, %v", commands, err)
	}
	flushed := first.Position()
	stored = append(stored, command(3, 2000, `"c"`), command(1, 2001, `{}`), command(3, 2002, `"d"`))
	commands, err := first.WaitCommands(t.Context())
	if err != nil || datas(commands) != `"c" "d"` || commands[0].Position != nil || commands[1].Position == nil {
		t.Fatalf("%+v, %v", commands, err)
	}

	for name, c := range map[string]struct {
		position []byte
		want     string
	}{
		"after the flush":        {flushed, `"c" "d"`},
		"after the last command": {commands[1].Position, ``},
		"nothing that is one":    {[]byte{0x80}, ``},
	} {
		m, err := New(Options{Builtin: Transparent, API: a})
		if err != nil {
			t.Fatal(err)
		}
		s := spec()
		s.Position = c.position
		i, err := m.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := i.WaitCommands(t.Context())
		if err != nil || datas(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", name, datas(got), err, c.want)
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = i.Close(ended)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
