package mqtt

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

// reports logs the state of the link: a reason once, again when it changes or
// after a while, and the recovery.
type reports struct {
	limit logging.Limiter // for what a peer can cause at will

	mu      sync.Mutex
	missing map[*conn]bool // connections that were lost or never made
	serving map[*conn]bool // shards that are up
	reason  string         // last one logged as a warning
	returns int            // connections made since the reason was logged
	at      time.Time
}

// down says why there is no connection (CONN-24, CONN-25). stable tells that there was
// one for a while: its loss is news also for a reason that is known.
func (r *reports) down(c *conn, err error, pause time.Duration, stable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.missing == nil {
		r.missing = make(map[*conn]bool)
	}
	r.missing[c] = true
	delete(r.serving, c)
	if stable {
		r.reason = ""
	}
	level := slog.LevelDebug
	if now := time.Now(); err.Error() != r.reason || now.Sub(r.at) >= repeatAfter {
		r.reason, r.at, r.returns = err.Error(), now, 0
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "no connection to the broker", "reason", err.Error(),
		"next_attempt_in", pause.Round(time.Millisecond).String())
}

// allUp notes that a shard or the scout is up and tells whether all are; mu is held.
func (r *reports) allUp(c *conn) bool {
	if r.serving == nil {
		r.serving = make(map[*conn]bool)
	}
	r.serving[c] = true
	return len(r.serving) == len(c.link.opts.Sessions.served())+int(c.link.keeping.scouts.Load())
}

// up says that a connection serves its cars.
func (r *reports) up(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.missing, c)
	level := slog.LevelInfo
	if (c.isShard() || c.scout) && !r.allUp(c) { // one line speaks for all, when the last is up
		level = slog.LevelDebug
	} else if r.returns++; r.returns > maxReturns {
		level = slog.LevelDebug
	}
	id := c.clientID
	if c.persistent {
		id = c.shardID()
	}
	c.log.Log(context.Background(), level, "connected to the broker", "client_id", id)
}
