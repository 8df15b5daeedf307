// Package reports logs the state of a link: a reason once, again when it changes or after a
// while, and the recovery.
package reports

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"external-server/internal/logging"
)

// repeatAfter is how often the same complaint is logged.
const repeatAfter = 5 * time.Minute

// together is the time within which connections that were up for a while and are lost for
// the same reason count as one loss.
const together = 5 * time.Second

// maxReasons is how many different reasons are told within repeatAfter.
const maxReasons = 16

// maxReturns is how many connections are announced that end again at once, for the
// same reason as the one before.
const maxReturns = 16

// Reports are those of one link, whose connections may call them from any goroutine. A
// connection is anything that can be compared.
type Reports struct {
	Limit logging.Limiter // for what a peer can cause at will

	mu      sync.Mutex
	serving map[any]bool         // connections that are up
	told    map[string]time.Time // reasons, and when a warning told them last
	returns int                  // connections made since the last warning
}

// Down says why there is no connection (CONN-24, CONN-25). stable tells that there was
// one for a while: its loss is news also for a reason that is known. A link has many connections,
// which a broker may refuse each in another way, in turn: each reason is told once.
func (r *Reports) Down(log *slog.Logger, connection any, err error, pause time.Duration, stable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.serving, connection)
	level := slog.LevelDebug
	if r.news(err.Error(), time.Now(), stable) {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "no connection to the broker", "reason", err.Error(),
		"next_attempt_in", pause.Round(time.Millisecond).String())
}

// Closed says that the broker has closed a connection several times within a while; once in a
// while for all connections.
func (r *Reports) Closed(log *slog.Logger, clientID string, times int, within time.Duration) {
	const text = "the broker closes this connection again and again: does another client use its client identifier? The broker's log has the address of that client; sessions of cars are lost as long as it does"
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.news(text, time.Now(), false) {
		log.Warn(text, "client_id", clientID, "times", times, "within", within.String())
	}
}

// news tells whether the reason is told now, and notes it; r.mu is held.
func (r *Reports) news(reason string, now time.Time, stable bool) bool {
	again := repeatAfter
	if stable {
		again = together
	}
	if at, known := r.told[reason]; known && now.Sub(at) < again {
		return false
	}
	maps.DeleteFunc(r.told, func(_ string, at time.Time) bool { return now.Sub(at) >= repeatAfter })
	if _, known := r.told[reason]; !known && len(r.told) >= maxReasons {
		return false
	}
	if r.told == nil {
		r.told = make(map[string]time.Time)
	}
	r.told[reason], r.returns = now, 0
	return true
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
