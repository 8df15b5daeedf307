package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"external-server/internal/support/testleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testleak.Settled(m)) }

// screen is a console for tests.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

const component = "External Server"

// logged returns what the console shows of what use logs.
func logged(t *testing.T, opts Options, use func(*Logs, *slog.Logger)) string {
	t.Helper()
	var out screen
	opts.Stderr, opts.Component = &out, component
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	use(l, l.Logger())
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	return out.String()
}

func console_(level slog.Level) Options { return Options{Console: Sink{Use: true, Level: level}} }

// LOG-2, LOG-3, LOG-4, LOG-7, LOG-9.
func TestClassicLines(t *testing.T) {
	out := logged(t, console_(slog.LevelDebug), func(_ *Logs, log *slog.Logger) {
		log.Info("serving", "cars", 3, "company", "acme")
		log.With(ComponentKey, ComponentCar, "car", "car_1").With("module", 2).
			Warn("session ended", "reason", "session timeout", "lasted", 1500*time.Millisecond)
		log.Log(t.Context(), LevelCritical, "over", "car", "car_2")
	})
	lines := strings.SplitAfter(out, "\n")
	for i, want := range []string{
		`\[internal/logging/logging_test.go:\d+\] \(server\)\tserving cars=3 company=acme\n`,
		`\[internal/logging/logging_test.go:\d+\]\t\(car_1\)\tsession ended module=2 reason="session timeout" lasted=1.5s\n`,
		`\[internal/logging/logging_test.go:\d+\]\t\(car_2\)\tover\n`,
	} {
		level := []string{"INFO", "WARNING", "CRITICAL"}[i]
		pattern := `^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})\] \[external-server\] \[` + level + `\]\t ` + want + `$`
		m := regexp.MustCompile(pattern).FindStringSubmatch(lines[i])
		if m == nil {
			t.Errorf("line %d is %q, want %s", i, lines[i], pattern)
			continue
		}
		at, err := time.ParseInLocation("2006-01-02 15:04:05.000", m[1], time.Local)
		if err != nil || time.Since(at) < 0 || time.Since(at) > time.Hour {
			t.Errorf("time %q is not the local time: %v", m[1], err)
		}
	}
}

func TestAttributes(t *testing.T) {
	type secret struct{ string }
	for want, attr := range map[string]slog.Attr{
		`empty=""`:             slog.String("empty", ""),
		`bool=true`:            slog.Bool("bool", true),
		`n=-7`:                 slog.Int("n", -7),
		`f=0.5`:                slog.Float64("f", 0.5),
		`err="broken pipe: x"`: slog.Any("err", errors.New("broken pipe: x")),
		`nil=<nil>`:            slog.Any("nil", nil),
		`bytes="\x00\xff"`:     slog.Any("bytes", []byte{0, 0xff}),
		`g.a=1 g.h.b=2`:        slog.Group("g", slog.Int("a", 1), slog.Group("h", slog.Int("b", 2))),
		`path=/var/log/x.log`:  slog.String("path", "/var/log/x.log"),
		`eq="a=b"`:             slog.String("eq", "a=b"),
		`"a key"=1`:            slog.Int("a key", 1),
		`token=[redacted]`:     slog.Any("token", redacted{}),
		`password=***`:         slog.Any("password", hidden{"hunter2"}),
		`s={string:x}`:         slog.Any("s", secret{"x"}),
		`panics="%!v(PANIC=String method: oops)"`: slog.Any("panics", panicking{}),
	} {
		out := logged(t, console_(slog.LevelInfo), func(_ *Logs, log *slog.Logger) {
			log.LogAttrs(t.Context(), slog.LevelInfo, "text", attr)
			log.With(attr).Info("text")
		})
		if n := strings.Count(out, "\ttext "+want+"\n"); n != 2 {
			t.Errorf("%q is there %d times, want 2, in %q", want, n, out)
		}
	}
	out := logged(t, console_(slog.LevelInfo), func(_ *Logs, log *slog.Logger) {
		log.WithGroup("g").With("a", 1).WithGroup("h").Info("text", "car", "x", "b", 2)
	})
	if !strings.HasSuffix(out, " (server)\ttext g.a=1 g.h.car=x g.h.b=2\n") {
		t.Errorf("groups give %q", out)
	}
}

// Loggers made from the same one do not see each other's attributes.
func TestSiblingsAreApart(t *testing.T) {
	for _, format := range []string{FormatText, FormatJSON} {
		out := logged(t, Options{Console: Sink{Use: true, Format: format}}, func(_ *Logs, log *slog.Logger) {
			parent := log
			for i := range 10 {
				parent = parent.With("k", i) // some lengths leave room to append
				one, two := parent.With("who", "one"), parent.With("who", "two")
				one.Info("text")
				two.Info("text")
			}
		})
		if one, two := strings.Count(out, "one"), strings.Count(out, "two"); one != 10 || two != 10 {
			t.Errorf("%s: one is there %d times, two %d times: %s", format, one, two, out)
		}
	}
}

type redacted struct{ _ string }

func (redacted) LogValue() slog.Value { return slog.StringValue("[redacted]") }

type hidden struct{ value string }

func (hidden) String() string { return "***" }

type panicking struct{}

func (panicking) String() string { panic("oops") }

// Whatever a stranger writes stays within its line and its field.
func FuzzForgedLines(f *testing.F) {
	f.Add("x\n[2020-01-01 00:00:00.000] [external-server] [ERROR]\t (server)\tforged", "a\tb\x1b[2J\u0085\u2028")
	f.Add("\"", "\\")
	f.Add("\xff\x00", "car=x")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, format := range []string{FormatText, FormatJSON} {
			out := logged(t, Options{Console: Sink{Use: true, Format: format}}, func(_ *Logs, log *slog.Logger) {
				log.Info(a, "role", b, "car", a)
				log.With("car", b).WithGroup(a).Info("text", b, a)
			})
			if n := strings.Count(out, "\n"); n != 2 || !strings.HasSuffix(out, "\n") {
				t.Errorf("%s: %d lines instead of 2: %q", format, n, out)
			}
			if format == FormatJSON {
				for line := range strings.Lines(out) {
					if !json.Valid([]byte(line)) {
						t.Errorf("not JSON: %q", line)
					}
				}
				continue
			}
			for _, r := range out {
				if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028) {
					t.Errorf("control character %U in %q", r, out)
				}
			}
			// A line about a car has three tabs, one of the server two.
			want := 6
			for _, car := range []string{a, b} {
				if car == "" || a == "" && b == carKey {
					want--
				}
			}
			if n := strings.Count(out, "\t"); n != want {
				t.Errorf("%d tabs instead of %d, a field was forged: %q", n, want, out)
			}
		}
	})
}

func TestJSON(t *testing.T) {
	out := logged(t, Options{Console: Sink{Use: true, Format: FormatJSON}}, func(_ *Logs, log *slog.Logger) {
		c := log.With(ComponentKey, ComponentCar, "car", "car_1")
		c.With(ComponentKey, ComponentModule, "module", 2).WithGroup("g").Warn("text", "a", 1, "token", redacted{})
	})
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"])); err != nil {
		t.Error(err)
	}
	delete(got, "time")
	want := `map[car:car_1 component:module g:map[a:1 token:[redacted]] level:WARNING module:2 msg:text]`
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := strings.Count(out, `"component"`); n != 1 {
		t.Errorf("the component is there %d times: %s", n, out)
	}
	out = logged(t, Options{Console: Sink{Use: true, Format: FormatJSON}}, func(_ *Logs, log *slog.Logger) { log.Info("text") })
	if !regexp.MustCompile(`"source":"internal/logging/logging_test.go:\d+"`).MatchString(out) {
		t.Errorf("no source in %s", out)
	}
}

// LOG-8.
func TestNoSink(t *testing.T) {
	out := logged(t, Options{}, func(_ *Logs, log *slog.Logger) {
		log.Info("hidden")
		log.Warn("shown", "key", "a b")
		log.With("car", "car_1").Error("shown too")
	})
	if out != "shown key=\"a b\"\n(car_1) shown too\n" {
		t.Errorf("standard error shows %q", out)
	}
}

// LOG-1: each sink has its own level and format.
func TestTwoSinks(t *testing.T) {
	dir := t.TempDir()
	out := logged(t, Options{
		Console: Sink{Use: true, Level: slog.LevelError},
		File:    Sink{Use: true, Level: slog.LevelInfo, Format: FormatJSON, Dir: dir},
	}, func(_ *Logs, log *slog.Logger) {
		log.Debug("one")
		log.Info("two")
		log.Error("three")
	})
	if strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\tthree\n") {
		t.Errorf("console shows %q", out)
	}
	content := read(t, filepath.Join(dir, "external_server.log"))
	if strings.Count(content, "\n") != 2 || !strings.Contains(content, `"msg":"two"`) || !strings.Contains(content, `"msg":"three"`) {
		t.Errorf("the file holds %q", content)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLevelsPerComponent(t *testing.T) {
	out := logged(t, console_(slog.LevelInfo), func(l *Logs, log *slog.Logger) {
		car, link := log.With(ComponentKey, ComponentCar), log.With(ComponentKey, ComponentLink)
		say := func(step string) {
			log.Debug(step + " server")
			car.With("car", "c").Debug(step + " car")
			link.Debug(step + " link")
		}
		say("0")
		check(t, l.SetLevel(ComponentCar, slog.LevelDebug))
		say("1")
		check(t, l.SetLevel("", slog.LevelDebug))
		say("2")
		check(t, l.ResetLevel(ComponentCar))
		say("3")
		check(t, l.ResetLevel(""))
		l.SetSinkLevels(slog.LevelDebug, slog.LevelDebug)
		check(t, l.SetLevel(ComponentLink, LevelCritical))
		say("4")
		if levels := l.Levels(); levels[ComponentLink].Now != LevelCritical || levels[ComponentCar].Now != slog.LevelDebug ||
			!levels[ComponentLink].Overridden || levels[ComponentCar].Overridden {
			t.Errorf("levels are %v", levels)
		}
		if err := l.SetLevel("cars", slog.LevelDebug); err == nil || !strings.Contains(err.Error(), `"cars"`) || !strings.Contains(err.Error(), "server, car, link") {
			t.Errorf("unknown component: %v", err)
		}
	})
	var got []string
	for line := range strings.Lines(out) {
		got = append(got, strings.TrimSpace(line[strings.LastIndex(line, "\t"):]))
	}
	want := "[1 car 2 server 2 car 2 link 3 server 3 link 4 server 4 car]"
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestParseLevel(t *testing.T) {
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "Info": slog.LevelInfo, "WARNING": slog.LevelWarn, "error": slog.LevelError, "Critical": LevelCritical} {
		got, err := ParseLevel(name)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ParseLevel("verbose"); err == nil || !strings.Contains(err.Error(), "verbose") {
		t.Errorf("verbose: %v", err)
	}
}

func TestNewErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	check(t, os.WriteFile(plain, nil, 0o600))
	taken := t.TempDir()
	check(t, os.Mkdir(filepath.Join(taken, "external_server.log"), 0o700))
	for name, c := range map[string]struct {
		opts Options
		want []string
	}{
		"missing directory": {Options{File: Sink{Use: true, Dir: dir + "/none"}}, []string{"logging.file.path", dir + "/none", "does not exist"}},
		"not a directory":   {Options{File: Sink{Use: true, Dir: plain}}, []string{"logging.file.path", plain, "not a directory"}},
		"not writable":      {Options{File: Sink{Use: true, Dir: taken}}, []string{"logging.file.path", "external_server.log", "is a directory"}},
		"format":            {Options{File: Sink{Format: "xml"}}, []string{"logging.file.format", "xml", "json"}},
		"size":              {Options{File: Sink{Use: true, Dir: dir, MaxBytes: -1}}, []string{"-1"}},
	} {
		c.opts.Component = component
		l, err := New(c.opts)
		if err == nil {
			t.Errorf("%s: no error", name)
			check(t, l.Close())
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
	}
}

// A disabled line must cost next to nothing.
func BenchmarkDisabled(b *testing.B) {
	l, err := New(Options{Console: Sink{Use: true, Level: slog.LevelInfo}, Stderr: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	log := l.Logger().With(ComponentKey, ComponentCar, "car", "car_1")
	b.Run("Enabled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if log.Enabled(b.Context(), slog.LevelDebug) {
				b.Fatal("enabled")
			}
		}
	})
	b.Run("LogAttrs", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		for b.Loop() {
			log.LogAttrs(ctx, slog.LevelDebug, "status received", slog.Uint64("counter", 1<<40))
		}
	})
}

func BenchmarkWritten(b *testing.B) {
	for _, format := range []string{FormatText, FormatJSON} {
		b.Run(format, func(b *testing.B) {
			l, err := New(Options{Console: Sink{Use: true, Format: format}, Stderr: io.Discard})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			log := l.Logger().With(ComponentKey, ComponentCar, "car", "car_1")
			b.ReportAllocs()
			for b.Loop() {
				log.Info("status received", "device", "1/2/role/name", "counter", 12)
			}
		})
	}
}

// JSON lines hold what is not printable as escapes only, and say the same.
func TestJSONLinesArePrintable(t *testing.T) {
	const sly = "abc\u202edef\u009b31m\u0085\x7f \U000e0001"
	out := EscapeJSON([]byte(`{"a":"` + sly + `"}` + "\n"))
	if text := string(out); text != `{"a":"abc\u202edef\u009b31m\u0085\u007f \udb40\udc01"}`+"\n" {
		t.Errorf("%q", text)
	}
}
