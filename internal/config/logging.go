package config

import (
	"log/slog"
	"strings"
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
func (l *loader) logging(top *object, format Format) Logging {
	n := top.get("logging")
	var given []string
	for _, key := range flatLogging {
		if top.get(key) != nil {
			given = append(given, key)
		}
	}
	if n == nil {
		if len(given) > 0 && format != FormatA {
			l.warnf(top.offset(given[0]), given[0], "belongs to the format with a single car, but is used, because there is no logging block")
		}
		return l.loggingA(top, len(given) > 0)
	}
	for _, key := range given {
		l.warnf(top.offset(key), key, "ignored, because the logging block is present and wins")
	}
	out := Logging{Console: defaultConsole()}
	o := l.object(n, "logging")
	if o == nil {
		return out
	}
	if o.has("log-path") || o.has("verbose") {
		out = l.loggingB(o)
	} else {
		out.Console = l.sink(o, "console", out.Console)
		out.File = l.sink(o, "file", Sink{Level: slog.LevelInfo, Format: "text", MaxBytes: defaultLogMaxBytes, Keep: defaultLogKeep})
	}
	o.finish()
	return out
}

func defaultConsole() Sink { return Sink{Use: true, Level: slog.LevelInfo, Format: "text"} }

// loggingA gives the keys of format A the effect they never had (CFG-7).
func (l *loader) loggingA(top *object, file bool) Logging {
	out := Logging{Console: defaultConsole()}
	out.File = Sink{
		Level: slog.LevelInfo, Format: "text",
		Path:     top.str("log_files_directory", ""),
		MaxBytes: top.integer("log_file_max_size_bytes", defaultLogMaxBytes, 0, maxInteger),
		Keep:     int(top.integer("log_files_to_keep", defaultLogKeep, 0, maxLogFiles)),
	}
	out.File.Use = file && out.File.Keep > 0
	l.logDirectory(top, "log_files_directory", out.File)
	return out
}

// maxLogFiles bounds how many files one rotation renames.
const maxLogFiles = 10_000

// loggingB reads the block of v2.0: one level for both sinks (CFG-16).
func (l *loader) loggingB(o *object) Logging {
	level := slog.LevelWarn
	if o.boolean("verbose", false) {
		level = slog.LevelDebug
	}
	out := Logging{Console: defaultConsole()}
	out.Console.Level = level
	out.File = Sink{
		Use: o.has("log-path"), Level: level, Format: "text",
		Path: o.str("log-path", ""), MaxBytes: defaultLogMaxBytes, Keep: defaultLogKeep,
	}
	l.logDirectory(o, "log-path", out.File)
	return out
}

// sink reads one sink of formats C and D; a sink that is described is used
// unless it says otherwise.
func (l *loader) sink(parent *object, key string, def Sink) Sink {
	n := parent.get(key)
	if n == nil {
		return def
	}
	o := l.object(n, parent.key(key))
	if o == nil {
		return def
	}
	s := def
	s.Use = o.boolean("use", true)
	s.Level = l.level(o, def.Level)
	s.Format = o.str("format", def.Format)
	if s.Format != "text" && s.Format != "json" {
		l.errorf(o.n.member("format").off, o.key("format"), `expected "text" or "json"`)
	}
	path := o.str("path", def.Path) // allowed for the console too, without effect
	if key == "file" {
		s.Path = path
		s.MaxBytes = o.integer("max_size_bytes", def.MaxBytes, 0, maxInteger)
		s.Keep = int(o.integer("files_to_keep", int64(def.Keep), 0, maxLogFiles))
		s.Use = s.Use && s.Keep > 0
		if s.Use && s.Path == "" { // CLI-14
			l.errorf(n.off, o.key("path"), `required when the file is used; expected an existing directory, "." is the working directory`)
		}
		l.logDirectory(o, "path", s)
	}
	o.finish()
	return s
}

func (l *loader) level(o *object, def slog.Level) slog.Level {
	n := o.get("level")
	if n == nil {
		return def
	}
	if n.kind == kindString {
		name := strings.ToUpper(strings.TrimSpace(n.text))
		if name == "WARN" {
			name = "WARNING"
		}
		for _, l := range levels {
			if l.name == name {
				return l.level
			}
		}
	}
	l.errorf(n.off, o.key("level"), "expected DEBUG, INFO, WARNING, ERROR or CRITICAL")
	return def
}

// logDirectory checks the directory of a file sink that is used (CLI-14).
func (l *loader) logDirectory(o *object, key string, s Sink) {
	n := o.n.member(key)
	if s.Use {
		l.note(PlaceLogPath, o.value(key), o.key(key))
	}
	if n == nil || n.kind != kindString || !s.Use {
		return
	}
	if fault := l.files.directory(s.Path); fault != "" {
		l.errorf(n.off, o.key(key), "%s", fault)
	}
}
