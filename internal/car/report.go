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
	Resumed   time.Time // when the current session was resumed last, zero: never
	LastSeen  time.Time // last message of the gateway, zero: none yet
	Devices   []fleet.Device
	Modules   []ModuleSnapshot // in the order of the configuration
	Statuses  uint64           // queued for modules
	Lost      uint64           // answered and not queued: a defect
	Sessions  uint64           // connect sequences completed
	Ended     map[session.Reason]uint64
	// Contended is the last warning that the car may have two gateways or two servers, and
	// ContendedAt when it was given; it is given again as long as that goes on.
	Contended   session.Note
	ContendedAt time.Time
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
	// Instance is the car's context of the module. A reader that knows its
	// kind may ask it about its state and nothing else.
	Instance module.Instance
}

// Disconnect ends the session of the car, if there is one, and tells the gateway,
// which connects anew. It may be called from any goroutine; it does not wait.
func (s *Seat) Disconnect() { s.put(item{kind: session.EventDisconnect}) }

// GatewayGone says that the broker has had no connection of the gateway for some time;
// its session, if there is one, ends. It may be called from any goroutine; it does not
// wait.
func (s *Seat) GatewayGone() { s.put(item{kind: session.EventGatewayGone}) }

// Reannounce asks the gateway to connect anew and to announce its devices again;
// the session goes on until it does. During a connect sequence nothing happens.
func (s *Seat) Reannounce() { s.put(item{kind: session.EventReannounce}) }

// counters are changed by several goroutines.
type counters struct {
	lastSeen                                                atomic.Int64 // Unix time in ns, 0: never; to be shown
	heardAt                                                 atomic.Int64 // the same as ns since Seat.born, which no change of the clock moves
	statuses, lost, unreadable, tooLarge, limited, overflow atomic.Uint64
}

// Snapshot may be called from any goroutine.
func (s *Seat) Snapshot() Snapshot {
	s.mu.Lock()
	v := s.view
	v.Ended = maps.Clone(s.view.Ended)
	v.Devices = slices.Clone(s.view.Devices)
	s.mu.Unlock()
	n := &s.counters
	if at := n.lastSeen.Load(); at != 0 {
		v.LastSeen = time.Unix(0, at)
	}
	v.Statuses, v.Lost = n.statuses.Load(), n.lost.Load()
	v.Unreadable, v.TooLarge, v.Limited, v.Overflow = n.unreadable.Load(), n.tooLarge.Load(), n.limited.Load(), n.overflow.Load()
	if o := s.occupant.Load(); o != nil {
		for _, m := range o.modules {
			v.Modules = append(v.Modules, ModuleSnapshot{Number: m.number, WorkerStats: m.worker.Stats(), Instance: m.instance})
		}
	}
	return v
}

// Silent tells for how long nothing has been heard of the gateway of a car that has
// no session; 0 if there is a session, or nothing was ever heard. It costs little.
func (s *Seat) Silent() time.Duration {
	at := s.counters.heardAt.Load()
	if at == 0 {
		return 0
	}
	s.mu.Lock()
	waiting := s.view.Phase == session.PhaseWaiting
	s.mu.Unlock()
	if !waiting {
		return 0
	}
	return time.Since(s.born) - time.Duration(at)
}

// Connecting tells whether the car is in a connect sequence. It costs little.
func (s *Seat) Connecting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.Phase != session.PhaseWaiting && s.view.Phase != session.PhaseRunning
}

// Resuming tells whether statuses that an earlier process had accepted have not been taken
// by their modules yet. It costs little.
func (s *Seat) Resuming() bool {
	o := s.occupant.Load()
	return o != nil && slices.ContainsFunc(o.modules, func(m *boundModule) bool { return m.worker.Resuming() })
}

// heard notes that a message has come.
func (s *Seat) heard(now time.Time) {
	s.counters.lastSeen.Store(now.UnixNano())
	s.counters.heardAt.Store(max(1, int64(now.Sub(s.born))))
}

func (o *occupant) setLink(up bool, reason error) {
	o.linkReason = reason
	if o.observing() {
		o.event.OK, o.event.Err = up, reason
		o.tell(Link, time.Now())
	}
	o.mu.Lock()
	o.view.LinkUp = up
	o.mu.Unlock()
}

// showPhase keeps the phase of the view current.
func (o *occupant) showPhase() {
	if p := o.session.Phase(); p != o.phase {
		o.phase = p
		o.mu.Lock()
		o.view.Phase = p
		o.mu.Unlock()
	}
}

// sessionChanged logs and records the life of a session. REC-21: every end has
// a reason.
func (o *occupant) sessionChanged(e *session.Effect) {
	now := time.Now()
	if e.Kind == session.EffectSessionStarted || o.started.IsZero() {
		o.started = now
	}
	o.tellSession(e, now, o.started)
	suppressed, due := o.lifeLine(now)
	switch {
	case !due:
	case e.Kind == session.EffectSessionStarted:
		o.log.Info("gateway connects", append([]any{"session", e.SessionID}, suppressed...)...)
	case e.Kind == session.EffectSessionRunning:
		o.log.Info("session running", append([]any{"session", e.SessionID, "devices", len(o.session.Devices()),
			"connect_sequence", now.Sub(o.started).Round(time.Millisecond).String()}, suppressed...)...)
	case e.Kind == session.EffectSessionResumed:
		o.log.Info("session resumed", append([]any{"session", e.SessionID, "devices", len(o.session.Devices()),
			"out_of_reach", e.Down.Round(time.Millisecond).String()}, suppressed...)...)
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
		args := []any{"session", e.SessionID, "reason", string(e.Reason), "lasted", now.Sub(o.started).Round(time.Millisecond).String()}
		if e.Reason == session.ReasonLinkDown && o.linkReason != nil {
			args = append(args, "error", o.linkReason)
		}
		if e.Count > 0 {
			args = append(args, "unacknowledged_commands", e.Count) // DEF-41
		}
		o.log.Log(context.Background(), level, "session ended", append(args, suppressed...)...)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.view.SessionID, o.view.Since = o.session.ID(), now
	o.view.Devices = o.session.Devices()
	switch e.Kind {
	case session.EffectSessionRunning:
		o.view.Sessions++
		o.view.Resumed = time.Time{}
	case session.EffectSessionResumed:
		o.view.Resumed = now
	case session.EffectSessionEnded:
		o.view.Ended[e.Reason]++
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
func (o *occupant) lifeLine(now time.Time) (suppressed []any, due bool) {
	if o.lifeLines.perSecond == 0 {
		o.lifeLines.set(lifeLinesPerSecond, lifeLinesBurst)
	}
	if !o.lifeLines.take(now) {
		o.lifeLinesLeftOut++
		return nil, false
	}
	if o.lifeLinesLeftOut > 0 {
		suppressed = []any{"suppressed", o.lifeLinesLeftOut}
		o.lifeLinesLeftOut = 0
	}
	return suppressed, true
}

// note logs an observation of the session, limited in rate: a peer causes most of
// them at will.
func (o *occupant) note(e *session.Effect) {
	lifecycle := e.Note == session.NoteDeviceConnected || e.Note == session.NoteDeviceDisconnected
	if lifecycle || e.Note == session.NoteRefused || e.Note == session.NoteTypeUnsupported {
		o.mu.Lock()
		o.view.Devices = o.session.Devices()
		o.mu.Unlock()
	}
	if e.Note.Contended() {
		o.mu.Lock()
		o.view.Contended, o.view.ContendedAt = e.Note, time.Now()
		o.mu.Unlock()
	}
	ctx := context.Background()
	level := logLevel(e.Level)
	if !o.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 4)
	if e.Device != (fleet.Device{}) {
		attrs = append(attrs, slog.Any("device", e.Device))
	}
	switch {
	case e.Count > 0:
		attrs = append(attrs, slog.Int("module", int(e.Module)), slog.Int("commands", e.Count))
	case !lifecycle && !e.Note.Contended():
		attrs = append(attrs, slog.Uint64("counter", uint64(e.Counter)))
	}
	if lifecycle {
		suppressed, due := o.lifeLine(time.Now())
		if !due {
			return
		}
		if len(suppressed) > 0 {
			attrs = append(attrs, slog.Any("suppressed", suppressed[1]))
		}
	}
	if lifecycle || level == slog.LevelDebug {
		o.log.LogAttrs(ctx, level, string(e.Note), attrs...)
		return
	}
	o.limit.Log(o.log, level, string(e.Note), attrs...)
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
