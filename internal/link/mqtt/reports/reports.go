// Package reports logs the state of a link: a reason once, again when it changes or after a
// while, and the recovery.
package reports

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"external-server/internal/logging"
)

// repeatAfter is how often the same complaint is logged.
const repeatAfter = 5 * time.Minute

// maxReturns is how many connections are announced that end again at once, for the
// same reason as the one before.
const maxReturns = 16

// Reports are those of one link, whose connections may call them from any goroutine. A
// connection is anything that can be compared.
type Reports struct {
	Limit logging.Limiter // for what a peer can cause at will

	mu      sync.Mutex
	serving map[any]bool // connections that are up
	reason  string       // last one logged as a warning
	returns int          // connections made since the reason was logged
	at      time.Time
}

// Down says why there is no connection (CONN-24, CONN-25). stable tells that there was
// one for a while: its loss is news also for a reason that is known.
func (r *Reports) Down(log *slog.Logger, connection any, err error, pause time.Duration, stable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.serving, connection)
	if stable {
		r.reason = ""
	}
	level := slog.LevelDebug
	if now := time.Now(); err.Error() != r.reason || now.Sub(r.at) >= repeatAfter {
		r.reason, r.at, r.returns = err.Error(), now, 0
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "no connection to the broker", "reason", err.Error(),
		"next_attempt_in", pause.Round(time.Millisecond).String())
}

// Up says that a connection serves its cars. Where it is one of so many, the last that is up
// speaks for all; 0: each speaks for itself.
func (r *Reports) Up(log *slog.Logger, connection any, of int, clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if of > 0 {
		if r.serving == nil {
			r.serving = make(map[any]bool)
		}
		r.serving[connection] = true
	}
	level := slog.LevelInfo
	if of > 0 && len(r.serving) != of {
		level = slog.LevelDebug
	} else if r.returns++; r.returns > maxReturns {
		level = slog.LevelDebug
	}
	log.Log(context.Background(), level, "connected to the broker", "client_id", clientID)
}
