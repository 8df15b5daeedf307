package host

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"external-server/internal/support/testlog"
)

func TestOutputIsBounded(t *testing.T) {
	var log testlog.Buffer
	o := &output{log: log.Logger()}
	o.read("stdout", strings.NewReader("first\r\n\nsecond \x1b[31m\xff\ttab\n"+strings.Repeat("z", 100000)+"\nlast without newline"))
	for _, want := range []string{`module output: first"`, "second", "tab", "... (cut)", "last without newline", "stream=stdout"} {
		if !log.Has(want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	text := log.String()
	if strings.Contains(text, "\x1b") || !utf8.ValidString(text) || len(text) > 5000 {
		t.Errorf("unclean or too long, %d bytes", len(text))
	}
	if got := o.last(); !strings.HasSuffix(got, " | last without newline") || len(got) > tailMaxBytes+3 {
		t.Errorf("last lines: %d bytes, %q", len(got), got[max(0, len(got)-60):])
	}
}

func TestOutputIsRateLimited(t *testing.T) {
	var log testlog.Buffer
	o := &output{log: log.Logger()}
	now := time.Now()
	for range linesPerSec + 50 {
		o.line("stderr", "line", now)
	}
	if n := strings.Count(log.String(), "module output"); n != linesPerSec {
		t.Errorf("%d lines logged, expected %d", n, linesPerSec)
	}
	o.line("stderr", "later", now.Add(time.Second))
	if !log.Has("level=WARN", "lines_dropped=50") || !log.Has("module output: later") {
		t.Errorf("the loss is not reported:\n%s", log.String()[len(log.String())-500:])
	}
}

// A warning that module-host or a module in Go writes is a warning here.
func TestOutputKeepsItsLevel(t *testing.T) {
	for line, level := range map[string]string{
		`level=WARN msg="init is slow" car=a`:                     "level=WARN",
		`time=2026-01-02T03:04:05Z level=ERROR msg="no database"`: "level=ERROR",
		`level=INFO msg="level=ERROR is what a status said"`:      "level=INFO",
		`a line of a library, level=ERROR`:                        "level=INFO",
		`level=WARN`:                                              "level=INFO",
	} {
		var log testlog.Buffer
		o := &output{log: log.Logger()}
		o.line("stderr", line, time.Now())
		if !log.Has(level + ` msg="module output: `) {
			t.Errorf("%q is logged as\n%s", line, log.String())
		}
	}
}

// FuzzOutput: whatever a module writes, lines are short, printable text.
func FuzzOutput(f *testing.F) {
	f.Add("plain\nlines\n")
	f.Add("\xff\x00\x1b]0;title\a\r\n\n")
	f.Add(strings.Repeat("long", 2000))
	f.Fuzz(func(t *testing.T, text string) {
		o := &output{log: (&testlog.Buffer{}).Logger()}
		o.read("stdout", strings.NewReader(text))
		if len(o.tail) > tailLines {
			t.Errorf("%d lines kept", len(o.tail))
		}
		for _, line := range o.tail {
			if len(line) > 3*maxLine+20 || !utf8.ValidString(line) || strings.ContainsAny(line, "\n\r\x1b\x00") {
				t.Errorf("line %q", line)
			}
		}
		if !utf8.ValidString(o.last()) {
			t.Errorf("last %q", o.last())
		}
	})
}
