// Package logging writes the server's log: slog handlers for the classic line
// format (LOG-2) and for JSON, a console and a rotating file, levels that
// can be changed per component while the server runs, and a limiter for what a
// peer can cause at will.
//
// Logging never holds up who logs: a line is formatted and put into a bounded
// queue, and a goroutine per destination writes it. What does not fit is
// counted, and the count is logged. A disk that is full or gone costs one
// warning on the console; lines wait in the queue until it can be written again.
//
// It imports nothing of the project, so that every package may use it.
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Formats of a Sink.
const (
	FormatText = "text" // LOG-2..4, the default
	FormatJSON = "json"
	formatBare = "bare" // LOG-8: without time, component and level
)

// Sink is one destination of log lines (LOG-1).
type Sink struct {
	Use    bool
	Level  slog.Level
	Format string // FormatText, FormatJSON; "" is text
	// Dir is the existing directory of the file sink; "" is the working directory.
	Dir string
	// MaxBytes is the size no log file exceeds, unless a single line does; 0: never rotated.
	MaxBytes int64
	// Keep is how many old files, .1 (the newest) to .Keep, are kept; 0: a full
	// file is begun anew and its content is gone.
	Keep int
}

// Options of New.
type Options struct {
	Console Sink
	File    Sink
	// Stderr is the destination of the console sink and of warnings about the
	// log file.
	Stderr io.Writer
	// Component is the name of the program (LOG-7), such as "External Server":
	// external-server in lines, external_server.log as file name.
	Component string
	// FlushTimeout bounds Close; zero means 2 s.
	FlushTimeout time.Duration
}

// Indices of the destinations.
const (
	console = iota
	file
)

// Logs owns the destinations. Its methods may be called from any goroutine.
type Logs struct {
	name       string // in lines
	formats    [2]string
	sinks      [2]*sink // sinks[file] is nil when it is not in use
	sources    sync.Map // program counter -> source position
	flushLimit time.Duration
	recent     recent

	mu         sync.Mutex
	sinkLevels [2]slog.Level
	overrides  []*slog.Level // per component
	thresholds []threshold   // per component, computed from the two above
}

// New opens the destinations. A file sink whose directory does not exist or in
// which the file cannot be created is an error that names the key (CLI-14,
// LOG-5). Without any sink warnings and above reach Stderr as bare text (LOG-8).
// The caller must Close the result.
func New(opts Options) (*Logs, error) {
	name := strings.ToLower(opts.Component)
	l := &Logs{
		name:       strings.ReplaceAll(name, " ", "-"),
		sinkLevels: [2]slog.Level{levelOff, levelOff},
		flushLimit: opts.FlushTimeout,
		overrides:  make([]*slog.Level, len(Components())),
		thresholds: make([]threshold, len(Components())),
	}
	if l.flushLimit <= 0 {
		l.flushLimit = 2 * time.Second
	}
	if opts.Stderr == nil {
		opts.Stderr = io.Discard
	}
	for i, s := range [...]struct {
		Sink
		key string
	}{{opts.Console, "logging.console"}, {opts.File, "logging.file"}} {
		switch s.Format {
		case "":
			l.formats[i] = FormatText
		case FormatText, FormatJSON:
			l.formats[i] = s.Format
		default:
			return nil, fmt.Errorf("%s.format is %q; expected %q or %q", s.key, s.Format, FormatText, FormatJSON)
		}
		if s.Use {
			l.sinkLevels[i] = s.Level
		}
	}
	var out *rotatingFile
	if opts.File.Use {
		var err error
		if out, err = openFile(opts.File, strings.ReplaceAll(name, " ", "_")+".log"); err != nil {
			return nil, err
		}
	}
	switch {
	case opts.Console.Use:
	case opts.File.Use:
		l.formats[console] = formatBare // only for warnings about the file
	default:
		l.formats[console] = formatBare
		l.sinkLevels[console] = slog.LevelWarn
	}
	l.applyLevels()
	l.sinks[console] = newSink(plainWriter{opts.Stderr}, l.reporter(console, "standard error"))
	if out != nil {
		l.sinks[file] = newSink(out, l.reporter(file, out.path))
	}
	for _, s := range l.sinks {
		if s != nil {
			go s.run()
		}
	}
	return l, nil
}

// Logger returns the root logger; its lines belong to ComponentServer.
func (l *Logs) Logger() *slog.Logger { return slog.New(newHandler(l)) }

// Lost returns how many lines were not written, per destination, because they
// came faster than they could be written or because writing failed.
func (l *Logs) Lost() (consoleLines, fileLines uint64) {
	if l.sinks[file] != nil {
		fileLines = l.sinks[file].lost.Load()
	}
	return l.sinks[console].lost.Load(), fileLines
}

// HasFile tells whether there is a log file.
func (l *Logs) HasFile() bool { return l.sinks[file] != nil }

// Fault is why the log file cannot be written to just now, nil when the last attempt
// succeeded or there is none.
func (l *Logs) Fault() error {
	if l.sinks[file] == nil {
		return nil
	}
	if err := l.sinks[file].fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Flush waits until everything logged before was written, or ctx ends.
func (l *Logs) Flush(ctx context.Context) error {
	for _, s := range l.sinks {
		if s == nil {
			continue
		}
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close writes what is queued, within FlushTimeout, and closes the file. The
// error says what was lost. Lines logged afterwards are only counted.
func (l *Logs) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), l.flushLimit)
	defer cancel()
	var errs []error
	for _, i := range [...]int{file, console} { // a warning about the file still reaches the console
		if s := l.sinks[i]; s != nil {
			errs = append(errs, s.close(ctx))
		}
	}
	return errors.Join(errs...)
}

// reporter makes what a sink says about itself.
func (l *Logs) reporter(of int, name string) reporter {
	line := func(to int, level slog.Level, text string, attrs ...slog.Attr) []byte {
		var here [1]uintptr
		runtime.Callers(1, here[:]) // LOG-4
		r := slog.NewRecord(time.Now(), level, text, here[0])
		r.AddAttrs(attrs...)
		h := newHandler(l)
		body := h.body(nil, r)
		h.keep(r, "", string(body))
		return h.format(to, context.Background(), r, "", body)
	}
	elsewhere := func(level slog.Level, text string, attrs ...slog.Attr) {
		to := console + file - of
		if l.sinks[to] != nil && l.sinks[to] != l.sinks[of] {
			l.sinks[to].enqueue(line(to, level, text, attrs...))
		}
	}
	target := slog.String("destination", name)
	return reporter{
		name: name,
		dropped: func(lines uint64) []byte {
			return line(of, slog.LevelWarn, "log lines came faster than they could be written and were dropped", slog.Uint64("lines", lines))
		},
		failing: func(err error) {
			elsewhere(slog.LevelWarn, "log cannot be written, going on without; trying again every second", target, slog.Any("error", err))
		},
		recovered: func() { elsewhere(slog.LevelWarn, "log can be written again", target) },
	}
}
