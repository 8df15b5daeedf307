package logging

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the lines that are kept in memory.
const (
	keptLines    = 500     // of WARNING and above; as many of the rest
	maxKeptLine  = 1 << 10 // bytes of the text of one
	maxKeptField = 256     // bytes of its car
)

// Line is one line of the log, as it is kept in memory.
type Line struct {
	At        time.Time
	Level     slog.Level
	Component string // "": the server itself
	Car       string // "": it is about no car
	Source    string // "" or file:line
	Text      string // message and attributes, with everything that is not printable escaped
}

// recent keeps the newest lines. Those of WARNING and above have room of their own, so
// that a flood of others does not push them out.
type recent struct {
	mu   sync.Mutex
	of   [2]lineRing // below WARNING, and from there on
	next uint64      // numbers all lines
}

type lineRing struct {
	lines []numberedLine
	at    int // where the next one goes, once it is full
}

type numberedLine struct {
	Line
	number uint64
}

func (r *recent) put(l Line) {
	l.Text, l.Car = clip(l.Text, maxKeptLine), clip(l.Car, maxKeptField)
	which := 0
	if l.Level >= slog.LevelWarn {
		which = 1
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next++
	n := numberedLine{l, r.next}
	ring := &r.of[which]
	if len(ring.lines) < keptLines {
		ring.lines = append(ring.lines, n)
		return
	}
	ring.lines[ring.at] = n
	ring.at = (ring.at + 1) % keptLines
}

// clip cuts escaped text, so that what is left does not hold the memory of the rest.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(strings.Clone(text[:most]), "") + "…"
}

// Recent returns the newest lines of at least that level for which want holds, the newest
// first and at most that many. want may be nil.
func (l *Logs) Recent(least slog.Level, most int, want func(*Line) bool) []Line {
	l.recent.mu.Lock()
	all := slices.Concat(l.recent.of[0].lines, l.recent.of[1].lines)
	l.recent.mu.Unlock()
	slices.SortFunc(all, func(a, b numberedLine) int {
		if a.number > b.number {
			return -1
		}
		return 1
	})
	out := []Line{}
	for i := range all {
		if one := &all[i].Line; one.Level >= least && (want == nil || want(one)) {
			if len(out) == most {
				break
			}
			out = append(out, *one)
		}
	}
	return out
}

// keep remembers a record that a destination has taken; text is its message with the
// attributes.
func (h *handler) keep(r slog.Record, car, text string) {
	h.logs.recent.put(Line{At: r.Time, Level: r.Level, Component: h.component, Car: car, Source: h.logs.source(r.PC), Text: text})
}
