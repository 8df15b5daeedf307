package module

import (
	"sync"
	"time"
)

// errorLogInterval is how often the same kind of error is logged.
const errorLogInterval = 10 * time.Second

// errorLog lets the first error of a kind through and then one per interval. The
// kinds are a handful of constants, so it needs no bound.
type errorLog struct {
	mu    sync.Mutex
	kinds map[string]*errorKind
}

type errorKind struct {
	last       time.Time
	suppressed int
}

// allow reports whether to log now, and how many were suppressed since the last.
func (l *errorLog) allow(kind string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if l.kinds == nil {
			l.kinds = make(map[string]*errorKind)
		}
		l.kinds[kind] = &errorKind{last: now}
		return 0, true
	}
	if now.Sub(k.last) < errorLogInterval {
		k.suppressed++
		return 0, false
	}
	suppressed, k.suppressed, k.last = k.suppressed, 0, now
	return suppressed, true
}
