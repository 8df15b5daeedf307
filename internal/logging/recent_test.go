package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func texts(lines []Line) (out []string) {
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return out
}

func TestRecentLines(t *testing.T) {
	for _, format := range []string{FormatText, FormatJSON} {
		var out bytes.Buffer
		logs, err := New(Options{Console: Sink{Use: true, Level: slog.LevelInfo, Format: format}, Stderr: &out, Component: "test"})
		if err != nil {
			t.Fatal(err)
		}
		log := logs.Logger()
		log.Debug("not logged")
		log.With(ComponentKey, ComponentLink).Info("connected", "broker", "here and there")
		log.With("car", "car1", ComponentKey, ComponentCar).Warn("strange\nline", "n", 3)
		log.Error("failed", "car", "car2", slog.Group("g", "a", 1))
		got := logs.Recent(slog.LevelDebug, 10, nil)
		if want := `[failed g.a=1 strange\nline n=3 connected broker="here and there"]`; fmt.Sprint(texts(got)) != want {
			t.Errorf("%s: lines %q, expected %s", format, texts(got), want)
		}
		if got[0].Car != "car2" || got[1].Car != "car1" || got[1].Component != ComponentCar || got[2].Component != ComponentLink || got[2].Level != slog.LevelInfo ||
			!strings.HasPrefix(got[0].Source, "internal/logging/recent_test.go:") || time.Since(got[0].At) > time.Hour {
			t.Errorf("%s: lines %+v", format, got)
		}
		if got := texts(logs.Recent(slog.LevelWarn, 1, nil)); len(got) != 1 || !strings.HasPrefix(got[0], "failed") {
			t.Errorf("%s: the newest warning is %q", format, got)
		}
		if got := texts(logs.Recent(slog.LevelDebug, 9, func(l *Line) bool { return l.Car == "car1" })); len(got) != 1 || !strings.HasPrefix(got[0], "strange") {
			t.Errorf("%s: of car1 %q", format, got)
		}
		if err := logs.Close(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%s: %d lines were written", format, n)
		}
	}
}

// The memory of the lines is bounded, and a flood of ordinary ones leaves the warnings.
func TestRecentLinesAreBounded(t *testing.T) {
	var out bytes.Buffer
	logs, err := New(Options{Console: Sink{Use: true, Level: slog.LevelInfo}, Stderr: &out, Component: "test"})
	if err != nil {
		t.Fatal(err)
	}
	log := logs.Logger()
	log.Warn("first warning")
	for i := range 4 * keptLines {
		log.Info("flood", "n", i)
	}
	log.Error(strings.Repeat("é", maxKeptLine), "car", strings.Repeat("c", 2*maxKeptField))
	got := logs.Recent(slog.LevelDebug, 10*keptLines, nil)
	if len(got) != keptLines+2 || got[len(got)-1].Text != "first warning" || got[1].Text != fmt.Sprintf("flood n=%d", 4*keptLines-1) || got[keptLines].Text != fmt.Sprintf("flood n=%d", 3*keptLines) {
		t.Errorf("%d lines are kept, from %q to %q", len(got), got[0].Text, got[len(got)-1].Text)
	}
	if long := got[0]; len(long.Text) > maxKeptLine+4 || len(long.Car) > maxKeptField+4 || !utf8.ValidString(long.Text) {
		t.Errorf("a line of %d bytes of a car of %d is kept", len(long.Text), len(long.Car))
	}
	for i := range 2 * keptLines {
		log.Warn("more", "n", i)
	}
	if got := logs.Recent(slog.LevelWarn, 10*keptLines, nil); len(got) != keptLines || got[0].Text != fmt.Sprintf("more n=%d", 2*keptLines-1) {
		t.Errorf("%d warnings are kept", len(got))
	}
	if err := logs.Close(); err != nil {
		t.Fatal(err)
	}
}
