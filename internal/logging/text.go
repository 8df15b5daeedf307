package logging

import (
	"fmt"
	"log/slog"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// text appends the classic line of a record (LOG-2..4):
//
//	[YYYY-MM-DD HH:MM:SS.mmm] [external-server] [LEVEL]<TAB> [source:line]<TAB>(car)<TAB>message key=value
//	[YYYY-MM-DD HH:MM:SS.mmm] [external-server] [LEVEL]<TAB> [source:line] (server)<TAB>message key=value
//
// bare leaves out everything before the car (LOG-8). Control characters are
// escaped everywhere, so that what comes from outside cannot forge a line.
func (h *handler) text(dst []byte, r slog.Record, car string, body []byte, bare bool) []byte {
	if !bare {
		dst = append(dst, '[')
		dst = r.Time.Local().AppendFormat(dst, "2006-01-02 15:04:05.000") // LOG-9
		dst = append(dst, "] ["...)
		dst = append(dst, h.logs.name...)
		dst = append(dst, "] ["...)
		dst = append(dst, LevelName(r.Level)...)
		dst = append(dst, "]\t "...)
		source := h.logs.source(r.PC)
		if source != "" {
			dst = append(dst, '[')
			dst = append(dst, source...)
			dst = append(dst, ']')
		}
		switch {
		case car != "" && source != "":
			dst = append(dst, '\t')
		case source != "":
			dst = append(dst, ' ')
		}
		if car == "" {
			dst = append(dst, "(server)\t"...)
		}
	}
	if car != "" {
		dst = append(dst, '(')
		dst = appendEscaped(dst, car)
		if bare {
			dst = append(dst, ") "...)
		} else {
			dst = append(dst, ")\t"...)
		}
	}
	dst = append(dst, body...)
	return append(dst, '\n')
}

// body appends what a line says: the message and the attributes.
func (h *handler) body(dst []byte, r slog.Record) []byte {
	dst = appendEscaped(dst, r.Message)
	dst = append(dst, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		if h.group != "" || a.Key != carKey && a.Key != ComponentKey {
			dst = appendAttr(dst, h.group, a)
		}
		return true
	})
	return dst
}

// carOf is the car that a record is about, "" for none.
func (h *handler) carOf(r slog.Record) string {
	car := h.car
	if h.group == "" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == carKey {
				car = a.Value.Resolve().String()
			}
			return true
		})
	}
	return car
}

// appendAttr appends " key=value", or the members of a group each with the
// group's name before its key.
func appendAttr(dst []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			dst = appendAttr(dst, prefix, member)
		}
		return dst
	}
	if a.Equal(slog.Attr{}) {
		return dst
	}
	dst = append(dst, ' ')
	dst = appendValue(dst, prefix+a.Key)
	dst = append(dst, '=')
	switch v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(dst, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(dst, v.Uint64(), 10)
	case slog.KindBool:
		return strconv.AppendBool(dst, v.Bool())
	case slog.KindTime:
		return v.Time().AppendFormat(dst, time.RFC3339Nano)
	case slog.KindAny:
		if b, ok := v.Any().([]byte); ok {
			return appendValue(dst, string(b))
		}
		// fmt calls Error and String, and survives their panics.
		return appendValue(dst, fmt.Sprintf("%+v", v.Any()))
	default: // strings, durations, floats
		return appendValue(dst, v.String())
	}
}

// appendValue appends text as it is when it is one plain word, else quoted.
func appendValue(dst []byte, text string) []byte {
	plain := text != ""
	for i := 0; i < len(text) && plain; i++ {
		c := text[i]
		plain = c > ' ' && c < utf8.RuneSelf-1 && c != '"' && c != '=' && c != '\\'
	}
	if plain {
		return append(dst, text...)
	}
	return strconv.AppendQuote(dst, text)
}

// appendEscaped appends text with everything that is not printable escaped as
// in a Go string.
func appendEscaped(dst []byte, text string) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\x`...)
			dst = append(dst, "0123456789abcdef"[text[0]>>4], "0123456789abcdef"[text[0]&15])
		case strconv.IsPrint(r):
			dst = append(dst, text[:size]...)
		default:
			quoted := strconv.QuoteRune(r)
			dst = append(dst, quoted[1:len(quoted)-1]...)
		}
		text = text[size:]
	}
	return dst
}

// source returns "internal/car/report.go:45" for a program counter of this
// program and "example.org/package/file.go:7" for one of a library; nothing
// of the machine that built it.
func (l *Logs) source(pc uintptr) string {
	if pc == 0 {
		return ""
	}
	if s, ok := l.sources.Load(pc); ok {
		return s.(string)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	// The function is "module/path/package.(*Type).Method".
	dir, rest := "", frame.Function
	if i := strings.LastIndexByte(rest, '/'); i >= 0 {
		dir, rest = rest[:i+1], rest[i+1:]
	}
	pkg, _, _ := strings.Cut(rest, ".")
	if dir = strings.TrimPrefix(dir+pkg, "external-server/"); dir == "main" {
		dir = "cmd/" + path.Base(path.Dir(frame.File))
	}
	s := path.Join(dir, path.Base(frame.File)) + ":" + strconv.Itoa(frame.Line)
	l.sources.Store(pc, s)
	return s
}
