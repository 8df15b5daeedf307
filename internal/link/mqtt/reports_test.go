package mqtt

import (
	"log/slog"
	"strings"
	"testing"

	"external-server/internal/testlog"
)

// Of many connections the first speaks for all, also when it is made last.
func TestOneLineForAllConnections(t *testing.T) {
	var log testlog.Buffer
	l, err := New(Options{Address: "127.0.0.1:1", Logger: slog.New(slog.NewTextHandler(&log, nil)), Sessions: &Sessions{ClientID: "es", Shards: 32}})
	if err != nil {
		t.Fatal(err)
	}
	for i := 31; i >= 0; i-- {
		l.reports.up(newConn(l, i))
	}
	if n := strings.Count(log.String(), "connected to the broker"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}
