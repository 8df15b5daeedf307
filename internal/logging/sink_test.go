package logging

import (
	"context"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stuckWriter takes nothing until it is released.
type stuckWriter struct {
	screen
	released chan struct{}
	entered  chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	select {
	case w.entered <- struct{}{}:
	default:
	}
	<-w.released
	return w.screen.Write(p)
}

// A terminal that takes nothing holds up no logger. What does not fit is counted,
// and the count is logged in its place.
func TestStuckConsole(t *testing.T) {
	w := &stuckWriter{released: make(chan struct{}), entered: make(chan struct{}, 1)}
	l, err := New(Options{Console: Sink{Use: true}, Stderr: w, Component: component})
	if err != nil {
		t.Fatal(err)
	}
	log := l.Logger()
	log.Info("first")
	<-w.entered // the queue is empty again, the writer is stuck
	long := strings.Repeat("x", maxQueued/10)
	for range 12 {
		log.Info("long", "x", long)
	}
	lost, _ := l.Lost()
	if lost < 3 || lost > 4 {
		t.Errorf("%d lines lost, want those beyond %d bytes", lost, maxQueued)
	}
	close(w.released)
	flush(t, l)
	log.Info("last")
	check(t, l.Close())
	out := w.String()
	if n := strings.Count(out, "\tlong "); n != 12-int(lost) {
		t.Errorf("%d of the long lines were written, %d lost", n, lost)
	}
	drop, last := strings.Index(out, "were dropped lines="), strings.LastIndex(out, "\tlast\n")
	if drop < strings.LastIndex(out, "\tlong ") || last < drop {
		t.Errorf("the count of dropped lines is not in its place: %d, %d", drop, last)
	}
}

// Close is bounded, whatever the destination does.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuckWriter{released: make(chan struct{}), entered: make(chan struct{}, 1)}
		l, err := New(Options{Console: Sink{Use: true}, Stderr: w, Component: component})
		if err != nil {
			t.Fatal(err)
		}
		l.Logger().Info("first")
		start := time.Now()
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "standard error") {
			t.Errorf("close: %v", err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("close took %v", d)
		}
		l.Logger().Info("too late")
		if lost, _ := l.Lost(); lost != 1 {
			t.Errorf("%d lines lost", lost)
		}
		close(w.released)
	})
}

// brokenWriter fails until it is repaired; it takes a part each time.
type brokenWriter struct {
	screen
	repaired atomic.Bool
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.repaired.Load() {
		return w.screen.Write(p)
	}
	n, _ := w.screen.Write(p[:1])
	return n, io.ErrClosedPipe
}

// What a failing console did not take is offered again, and the file tells.
func TestBrokenConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &brokenWriter{}
		dir := t.TempDir()
		l, err := New(Options{Console: Sink{Use: true}, File: Sink{Use: true, Dir: dir}, Stderr: w, Component: component})
		if err != nil {
			t.Fatal(err)
		}
		l.Logger().Info("some text")
		time.Sleep(3500 * time.Millisecond) // of the fake clock
		w.repaired.Store(true)
		check(t, l.Flush(t.Context()))
		check(t, l.Close())
		if out := w.String(); strings.Count(out, "\n") != 1 || !strings.Contains(out, "\tsome text\n") {
			t.Errorf("console shows %q", out)
		}
		content := read(t, dir+"/external_server.log")
		if strings.Count(content, "log cannot be written") != 1 || strings.Count(content, "can be written again") != 1 {
			t.Errorf("file holds %q", content)
		}
		for line := range strings.Lines(content) {
			if !regexp.MustCompile(`\] \[WARNING\]\t \[internal/logging/\S+:\d+\] \(server\)\t|\tsome text\n`).MatchString(line) {
				t.Errorf("LOG-4: %q", line)
			}
		}
	})
}

func TestFlushIsBounded(t *testing.T) {
	w := &stuckWriter{released: make(chan struct{}), entered: make(chan struct{}, 1)}
	l, err := New(Options{Console: Sink{Use: true}, Stderr: w, Component: component})
	if err != nil {
		t.Fatal(err)
	}
	l.Logger().Info("first")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Flush(ctx); err == nil {
		t.Error("flush returned although nothing was written")
	}
	close(w.released)
	check(t, l.Close())
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{AddSource: true}))
		var limit Limiter
		for range 5 {
			limit.Log(log, slog.LevelInfo, "one")
			limit.Log(log, slog.LevelInfo, "two")
			limit.Log(log, slog.LevelDebug, "disabled")
		}
		time.Sleep(LimitInterval) // of the fake clock
		limit.Log(log, slog.LevelInfo, "one", slog.Int("n", 1))
		limit.Log(log, slog.LevelInfo, "one")
		got := out.String()
		if strings.Count(got, "\n") != 3 || !strings.HasSuffix(got, "msg=one n=1 suppressed=4\n") {
			t.Errorf("logged %q", got)
		}
		if strings.Count(got, "sink_test.go:") != 3 {
			t.Errorf("the source is not the caller: %q", got)
		}
		// Texts that a stranger chooses cannot fill the memory.
		for i := range 10 * maxKinds {
			limit.Allow(strings.Repeat("x", i))
		}
		if n := len(limit.kinds); n > maxKinds+1 {
			t.Errorf("%d kinds are remembered", n)
		}
	})
}
