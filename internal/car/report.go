package car

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"external-server/internal/fleet"
	"external-server/internal/session"
)

// Snapshot is what can be said about a car at one moment.
type Snapshot struct {
	ID         fleet.CarID
	LinkUp     bool
	Phase      session.Phase
	SessionID  string    // "" without session
	Since      time.Time // of the current session, or of the last end of one
	LastSeen   time.Time // last message of the gateway, zero: none yet
	Devices    []fleet.Device
	Statuses   uint64 // handed to modules
	Sessions   uint64 // connect sequences completed
	Ended      map[session.Reason]uint64
	Unreadable uint64 // messages that were not protocol messages
	Overflow   uint64 // messages dropped because the car could not keep up
	Limited    uint64 // messages dropped because of limits.messages_per_second
}

// Snapshot may be called from any goroutine.
func (c *Car) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.view
	v.Statuses = c.statuses.Load()
	v.Ended = maps.Clone(c.view.Ended)
	v.Unreadable, v.Overflow, v.Limited = c.unreadable.Load(), c.lost.Load(), c.limited.Load()
	return v
}

func (c *Car) seen() {
	now := time.Now()
	c.mu.Lock()
	c.view.LastSeen = now
	c.mu.Unlock()
}

func (c *Car) setLink(up bool) {
	c.mu.Lock()
	c.view.LinkUp = up
	c.mu.Unlock()
}

// sessionChanged logs and records the life of a session. REC-21: every end has
// a reason.
func (c *Car) sessionChanged(e *session.Effect) {
	now := time.Now()
	switch e.Kind {
	case session.EffectSessionStarted:
		c.since = now
		c.log.Info("gateway connects", "session", e.SessionID)
	case session.EffectSessionRunning:
		c.log.Info("session running", "session", e.SessionID, "devices", len(c.session.Devices()),
			"connect_sequence", now.Sub(c.since).Round(time.Millisecond).String())
	case session.EffectSessionEnded:
		// A stop is ours and wanted, a replaced session is the gateway's normal
		// restart; the rest an operator should look at (SM-6).
		level := slog.LevelWarn
		switch e.Reason {
		case session.ReasonStopped, session.ReasonReplaced:
			level = slog.LevelInfo
		case session.ReasonPublishFailed:
			level = slog.LevelError
		}
		args := []any{"session", e.SessionID, "reason", string(e.Reason), "lasted", now.Sub(c.since).Round(time.Millisecond).String()}
		if e.Count > 0 {
			args = append(args, "unacknowledged_commands", e.Count) // DEF-41
		}
		c.log.Log(context.Background(), level, "session ended", args...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.Phase, c.view.SessionID, c.view.Since = c.session.Phase(), c.session.ID(), now
	c.view.Devices = c.session.Devices()
	switch e.Kind {
	case session.EffectSessionRunning:
		c.view.Sessions++
	case session.EffectSessionEnded:
		c.view.Ended[e.Reason]++
	}
}

func (c *Car) drop(text string, attrs ...slog.Attr) {
	c.unreadable.Add(1)
	c.limit.Log(c.log, slog.LevelInfo, text, attrs...)
}

// note logs an observation of the session. What a peer can cause at will is
// limited in rate; the life of devices is not.
func (c *Car) note(e *session.Effect) {
	lifecycle := e.Note == session.NoteDeviceConnected || e.Note == session.NoteDeviceDisconnected
	if lifecycle {
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
