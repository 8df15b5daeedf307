package mqtt

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"external-server/internal/support/testlog"
)

// Of many connections the last one that is made speaks for all.
func TestLineComesWithTheLastConnection(t *testing.T) {
	var log testlog.Buffer
	l, err := New(Options{Address: "127.0.0.1:1", Logger: slog.New(slog.NewTextHandler(&log, nil)), Sessions: &Sessions{ClientID: "es", Shards: 32}})
	if err != nil {
		t.Fatal(err)
	}
	for i := 31; i >= 0; i-- {
		l.conns[i].reportUp()
	}
	if n := strings.Count(log.String(), "connected to the broker"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	l.reports.Down(l.log, l.conns[0], errors.New("lost"), 0, true)
	l.conns[0].reportUp()
	if n := strings.Count(log.String(), "connected to the broker"); n != 2 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}
