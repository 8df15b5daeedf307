package logging

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// LimitInterval is how often lines of one kind are logged through a Limiter.
const LimitInterval = 10 * time.Second

// maxKinds bounds the kinds one Limiter tells apart; the rest counts as one.
const maxKinds = 256

// Limiter logs what a peer or a module can cause at will: the first line of a
// kind and then one per LimitInterval, with the number of those left out. The
// kind of a line is its text. The zero value is ready; it may be used from any
// goroutine.
type Limiter struct {
	mu    sync.Mutex
	kinds map[string]*kind
}

type kind struct {
	last       time.Time
	suppressed int
}

// Log logs the line, unless it is disabled or too soon after the last of its
// kind. Costly attributes are better computed after asking Allow.
func (l *Limiter) Log(log *slog.Logger, level slog.Level, text string, attrs ...slog.Attr) {
	if !log.Enabled(context.Background(), level) {
		return
	}
	suppressed, ok := l.Allow(text)
	if !ok {
		return
	}
	var pcs [1]uintptr
	runtime.Callers(2, pcs[:]) // the line names the caller, not this method
	r := slog.NewRecord(time.Now(), level, text, pcs[0])
	r.AddAttrs(attrs...)
	if suppressed > 0 {
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	_ = log.Handler().Handle(context.Background(), r) // as slog does
}

// Allow tells whether a line of the kind is due now, and how many were left out
// since the last one. The caller must log when it is due.
func (l *Limiter) Allow(text string) (suppressed int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kinds == nil {
		l.kinds = make(map[string]*kind)
	}
	k := l.kinds[text]
	if k == nil {
		if len(l.kinds) >= maxKinds {
			text = ""
		}
		if k = l.kinds[text]; k == nil {
			l.kinds[text] = &kind{last: now}
			return 0, true
		}
	}
	if now.Sub(k.last) < LimitInterval {
		k.suppressed++
		return 0, false
	}
	suppressed, k.suppressed, k.last = k.suppressed, 0, now
	return suppressed, true
}
