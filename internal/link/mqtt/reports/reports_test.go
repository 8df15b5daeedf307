package reports

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"external-server/internal/support/testlog"
)

// Many connections that fail in turn for one of two reasons are two warnings, and again two
// after a while.
func TestEachReasonIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testlog.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var r Reports
		for n := range 1000 {
			r.Down(log, n%32, fmt.Errorf("refused in the way %d", n%2), time.Second, false)
		}
		warnings(t, &out, 2)
		time.Sleep(repeatAfter)
		for n := range 1000 {
			r.Down(log, n%32, fmt.Errorf("refused in the way %d", n%2), time.Second, false)
		}
		warnings(t, &out, 4)
	})
}

// Connections that a restart of the broker has cut are one warning, and so is the next
// restart.
func TestOneLossOfManyConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testlog.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var r Reports
		for restart := range 3 {
			for n := range 32 {
				r.Down(log, n, errors.New("lost"), time.Second, true)
				r.Down(log, n, errors.New("refused"), time.Second, false)
			}
			warnings(t, &out, 2+restart)
			time.Sleep(together)
		}
	})
}

// Reasons that never are the same do not fill the log.
func TestManyReasons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testlog.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var r Reports
		for n := range 1000 {
			r.Down(log, 1, fmt.Errorf("reason %d", n), time.Second, n%2 == 0)
		}
		warnings(t, &out, maxReasons)
		time.Sleep(repeatAfter)
		r.Down(log, 1, errors.New("one more"), time.Second, false)
		warnings(t, &out, maxReasons+1)
		if len(r.told) != 1 {
			t.Errorf("%d reasons are kept", len(r.told))
		}
	})
}

func warnings(t *testing.T, out *testlog.Buffer, want int) {
	t.Helper()
	if n := strings.Count(out.String(), "level=WARN"); n != want {
		t.Errorf("%d warnings, want %d", n, want)
	}
}
