package config

import (
	"log/slog"
	"strings"

	"external-server/internal/config/document"
)

// LevelCritical is the level CRITICAL of the reference: above ERROR.
const LevelCritical = slog.LevelError + 4

// Defaults of the file sink (LOG-6).
const (
	defaultLogMaxBytes = 10_485_760
	defaultLogKeep     = 5
)

// Names of levels, lowest first.
var levels = [...]struct {
	name  string
	level slog.Level
}{{"DEBUG", slog.LevelDebug}, {"INFO", slog.LevelInfo}, {"WARNING", slog.LevelWarn}, {"ERROR", slog.LevelError}, {"CRITICAL", LevelCritical}}

func levelName(level slog.Level) string {
	for _, l := range levels {
		if level <= l.level {
			return l.name
		}
	}
	return "CRITICAL"
}

var flatLogging = []string{"log_files_directory", "log_files_to_keep", "log_file_max_size_bytes"}

// logging reads the block of formats C and D, that of B, or the keys of A. A
// block wins over the keys of A. Without any of them INFO goes to the console.
func (l *loader) logging(top *document.Object, format Format) Logging {
	n := top.Get("logging")
	var given []string
	for _, key := range flatLogging {
		if top.Get(key) != nil {
			given = append(given, key)
		}
	}
	if n == nil {
		if len(given) > 0 && format != FormatA {
			l.Warnf(top.KeyAt(given[0]), given[0], "belongs to the format with a single car, but is used, because there is no logging block")
		}
		return l.loggingA(top, len(given) > 0)
	}
	for _, key := range given {
		l.Warnf(top.KeyAt(key), key, "ignored, because the logging block is present and wins")
	}
	out := Logging{Console: defaultConsole()}
	o := l.Object(n, "logging")
	if o == nil {
		return out
	}
	if o.Has("log-path") || o.Has("verbose") {
		out = l.loggingB(o)
	} else {
		out.Console = l.sink(o, "console", out.Console)
		out.File = l.sink(o, "file", Sink{Level: slog.LevelInfo, Format: "text", MaxBytes: defaultLogMaxBytes, Keep: defaultLogKeep})
	}
	o.Finish()
	return out
}

func defaultConsole() Sink { return Sink{Use: true, Level: slog.LevelInfo, Format: "text"} }

// loggingA gives the keys of format A the effect they never had (CFG-7).
func (l *loader) loggingA(top *document.Object, file bool) Logging {
	out := Logging{Console: defaultConsole()}
	out.File = Sink{
		Level: slog.LevelInfo, Format: "text",
		Path:     top.Str("log_files_directory", ""),
		MaxBytes: top.Integer("log_file_max_size_bytes", defaultLogMaxBytes, 0, document.MaxInteger),
		Keep:     int(top.Integer("log_files_to_keep", defaultLogKeep, 0, maxLogFiles)),
	}
	out.File.Use = file && out.File.Keep > 0
	l.logDirectory(top, "log_files_directory", out.File)
	return out
}

// maxLogFiles bounds how many files one rotation renames.
const maxLogFiles = 10_000

// loggingB reads the block of v2.0: one level for both sinks (CFG-16).
func (l *loader) loggingB(o *document.Object) Logging {
	level := slog.LevelWarn
	if o.Boolean("verbose", false) {
		level = slog.LevelDebug
	}
	out := Logging{Console: defaultConsole()}
	out.Console.Level = level
	out.File = Sink{
		Use: o.Has("log-path"), Level: level, Format: "text",
		Path: o.Str("log-path", ""), MaxBytes: defaultLogMaxBytes, Keep: defaultLogKeep,
	}
	l.logDirectory(o, "log-path", out.File)
	return out
}

// sink reads one sink of formats C and D; a sink that is described is used
// unless it says otherwise.
func (l *loader) sink(parent *document.Object, key string, def Sink) Sink {
	n := parent.Get(key)
	if n == nil {
		return def
	}
	o := l.Object(n, parent.Key(key))
	if o == nil {
		return def
	}
	s := def
	s.Use = o.Boolean("use", true)
	s.Level = l.level(o, def.Level)
	s.Format = o.Str("format", def.Format)
	if s.Format != "text" && s.Format != "json" {
		l.Errorf(o.Value.Member("format").Off, o.Key("format"), `expected "text" or "json"`)
	}
	path := o.Str("path", def.Path) // allowed for the console too, without effect
	if key == "file" {
		s.Path = path
		s.MaxBytes = o.Integer("max_size_bytes", def.MaxBytes, 0, document.MaxInteger)
		s.Keep = int(o.Integer("files_to_keep", int64(def.Keep), 0, maxLogFiles))
		s.Use = s.Use && s.Keep > 0
		if s.Use && s.Path == "" { // CLI-14
			l.Errorf(n.Off, o.Key("path"), `required when the file is used; expected an existing directory, "." is the working directory`)
		}
		l.logDirectory(o, "path", s)
	}
	o.Finish()
	return s
}

func (l *loader) level(o *document.Object, def slog.Level) slog.Level {
	n := o.Get("level")
	if n == nil {
		return def
	}
	if n.Kind == document.KindString {
		name := strings.ToUpper(strings.TrimSpace(n.Text))
		if name == "WARN" {
			name = "WARNING"
		}
		for _, l := range levels {
			if l.name == name {
				return l.level
			}
		}
	}
	l.Errorf(n.Off, o.Key("level"), "expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
	return def
}

// logDirectory checks the directory of a file sink that is used (CLI-14).
func (l *loader) logDirectory(o *document.Object, key string, s Sink) {
	n := o.Value.Member(key)
	if s.Use {
		l.note(PlaceLogPath, o.At(key), o.Key(key))
	}
	if n == nil || n.Kind != document.KindString || !s.Use {
		return
	}
	if fault := l.files.Directory(s.Path); fault != "" {
		l.Errorf(n.Off, o.Key(key), "%s", fault)
	}
}
