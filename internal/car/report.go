package car

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/module"
	"external-server/internal/session"
)

// Snapshot is what can be said about a car at one moment.
type Snapshot struct {
	ID        fleet.CarID
	LinkUp    bool
	Phase     session.Phase
	SessionID string    // "" without session
	Since     time.Time // of the current session, or of the last end of one
	LastSeen  time.Time // last message of the gateway, zero: none yet
	Devices   []fleet.Device
	Modules   []ModuleSnapshot // in the order of the configuration
	Statuses  uint64           // queued for modules
	Lost      uint64           // answered and not queued: a defect
	Sessions  uint64           // connect sequences completed
	Ended     map[session.Reason]uint64
	// Messages of the gateway that were dropped, by reason.
	Unreadable uint64 // not protocol messages (CONN-32)
	TooLarge   uint64
	Limited    uint64 // because of limits.messages_per_second
	Overflow   uint64 // the car could not keep up
}

// ModuleSnapshot is what can be said about one module of a car.
type ModuleSnapshot struct {
	Number int32
	module.WorkerStats
	// Instance is the car's context of the module. Whoever knows its kind may ask
	// it about its state and nothing else.
	Instance module.Instance
}

// Disconnect ends the session of the car, if there is one, and tells the gateway,
// which connects anew. It may be called from any goroutine; it does not wait.
func (c *Car) Disconnect() { c.put(item{kind: session.EventDisconnect}) }

// Reannounce asks the gateway to connect anew and to announce its devices again;
// the session goes on until it does. During a connect sequence nothing happens.
func (c *Car) Reannounce() { c.put(item{kind: session.EventReannounce}) }

// counters are changed by several goroutines.
type counters struct {
	lastSeen                                                atomic.Int64 // Unix time in ns, 0: never; to be shown
	heardAt                                                 atomic.Int64 // the same as ns since Car.born, which no change of the clock moves
	statuses, lost, unreadable, tooLarge, limited, overflow atomic.Uint64
}

// Snapshot may be called from any goroutine.
func (c *Car) Snapshot() Snapshot {
	c.mu.Lock()
	v := c.view
	v.Ended = maps.Clone(c.view.Ended)
	v.Devices = slices.Clone(c.view.Devices)
	c.mu.Unlock()
	n := &c.counters
	if at := n.lastSeen.Load(); at != 0 {
		v.LastSeen = time.Unix(0, at)
	}
	v.Statuses, v.Lost = n.statuses.Load(), n.lost.Load()
	v.Unreadable, v.TooLarge, v.Limited, v.Overflow = n.unreadable.Load(), n.tooLarge.Load(), n.limited.Load(), n.overflow.Load()
	for _, m := range c.modules {
		v.Modules = append(v.Modules, ModuleSnapshot{Number: m.number, WorkerStats: m.worker.Stats(), Instance: m.instance})
	}
	return v
}

// Silent tells for how long nothing has been heard of the gateway of a car that has
// no session; 0 if there is a session, or nothing was ever heard. It costs little.
func (c *Car) Silent() time.Duration {
	at := c.counters.heardAt.Load()
	if at == 0 {
		return 0
	}
	c.mu.Lock()
	waiting := c.view.Phase == session.PhaseWaiting
	c.mu.Unlock()
	if !waiting {
		return 0
	}
	return time.Since(c.born) - time.Duration(at)
}

// heard notes that a message has come.
func (c *Car) heard(now time.Time) {
	c.counters.lastSeen.Store(now.UnixNano())
	c.counters.heardAt.Store(max(1, int64(now.Sub(c.born))))
}

func (c *Car) setLink(up bool, reason error) {
	c.linkReason = reason
	if c.observing() {
		c.event.OK, c.event.Err = up, reason
		c.tell(Link, time.Now())
	}
	c.mu.Lock()
	c.view.LinkUp = up
	c.mu.Unlock()
}

// showPhase keeps the phase of the view current.
func (c *Car) showPhase() {
	if p := c.session.Phase(); p != c.phase {
		c.phase = p
		c.mu.Lock()
		c.view.Phase = p
		c.mu.Unlock()
	}
}

// sessionChanged logs and records the life of a session. REC-21: every end has
// a reason.
func (c *Car) sessionChanged(e *session.Effect) {
	now := time.Now()
	if e.Kind == session.EffectSessionStarted {
		c.started = now
	}
	c.tellSession(e, now, c.started)
	suppressed, due := c.lifeLine(now)
	switch {
	case !due:
	case e.Kind == session.EffectSessionStarted:
		c.log.Info("gateway connects", append([]any{"session", e.SessionID}, suppressed...)...)
	case e.Kind == session.EffectSessionRunning:
		c.log.Info("session running", append([]any{"session", e.SessionID, "devices", len(c.session.Devices()),
			"connect_sequence", now.Sub(c.started).Round(time.Millisecond).String()}, suppressed...)...)
	case e.Kind == session.EffectSessionEnded:
		// A stop is ours and wanted, a replaced session is the gateway's normal
		// restart; the rest an operator should look at (SM-6).
		level := slog.LevelWarn
		switch e.Reason {
		case session.ReasonStopped, session.ReasonReloaded, session.ReasonReplaced, session.ReasonOperator:
			level = slog.LevelInfo
		case session.ReasonPublishFailed:
			level = slog.LevelError
		}
		args := []any{"session", e.SessionID, "reason", string(e.Reason), "lasted", now.Sub(c.started).Round(time.Millisecond).String()}
		if e.Reason == session.ReasonLinkDown && c.linkReason != nil {
			args = append(args, "error", c.linkReason)
		}
		if e.Count > 0 {
			args = append(args, "unacknowledged_commands", e.Count) // DEF-41
		}
		c.log.Log(context.Background(), level, "session ended", append(args, suppressed...)...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.SessionID, c.view.Since = c.session.ID(), now
	c.view.Devices = c.session.Devices()
	switch e.Kind {
	case session.EffectSessionRunning:
		c.view.Sessions++
	case session.EffectSessionEnded:
		c.view.Ended[e.Reason]++
	}
}

// Lines about the life of a session and its devices. Few gateways have a reason to
// cause more; one that connects without end must not push everything else out of
// the log.
const (
	lifeLinesPerSecond = 5
	lifeLinesBurst     = 300
)

// lifeLine tells whether a line about the life of a session or a device is due, and
// what it must say about lines left out before.
func (c *Car) lifeLine(now time.Time) (suppressed []any, due bool) {
	if c.lifeLines.perSecond == 0 {
		c.lifeLines.set(lifeLinesPerSecond, lifeLinesBurst)
	}
	if !c.lifeLines.take(now) {
		c.lifeLinesLeftOut++
		return nil, false
	}
	if c.lifeLinesLeftOut > 0 {
		suppressed = []any{"suppressed", c.lifeLinesLeftOut}
		c.lifeLinesLeftOut = 0
	}
	return suppressed, true
}

// note logs an observation of the session, limited in rate: a peer causes most of
// them at will.
func (c *Car) note(e *session.Effect) {
	lifecycle := e.Note == session.NoteDeviceConnected || e.Note == session.NoteDeviceDisconnected
	if lifecycle || e.Note == session.NoteRefused || e.Note == session.NoteTypeUnsupported {
		c.mu.Lock()
		c.view.Devices = c.session.Devices()
		c.mu.Unlock()
	}
	ctx := context.Background()
	level := logLevel(e.Level)
	if !c.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 4)
	if e.Device != (fleet.Device{}) {
		attrs = append(attrs, slog.Any("device", e.Device))
	}
	switch {
	case e.Count > 0:
		attrs = append(attrs, slog.Int("module", int(e.Module)), slog.Int("commands", e.Count))
	case !lifecycle:
		attrs = append(attrs, slog.Uint64("counter", uint64(e.Counter)))
	}
	if lifecycle {
		suppressed, due := c.lifeLine(time.Now())
		if !due {
			return
		}
		if len(suppressed) > 0 {
			attrs = append(attrs, slog.Any("suppressed", suppressed[1]))
		}
	}
	if lifecycle || level == slog.LevelDebug {
		c.log.LogAttrs(ctx, level, string(e.Note), attrs...)
		return
	}
	c.limit.Log(c.log, level, string(e.Note), attrs...)
}

func logLevel(l session.Level) slog.Level {
	switch l {
	case session.Info:
		return slog.LevelInfo
	case session.Warning:
		return slog.LevelWarn
	case session.Error:
		return slog.LevelError
	}
	return slog.LevelDebug
}
