package logging

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
)

// LevelCritical is above slog.LevelError: the service cannot go on (CFG, key
// logging.*.level).
const LevelCritical = slog.Level(12)

// levelOff is above every level anybody logs with.
const levelOff = slog.Level(math.MaxInt32)

// LevelName returns the name of the level in log lines and in configurations:
// DEBUG, INFO, WARNING, ERROR or CRITICAL, whichever is the highest not above
// the level.
func LevelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "DEBUG"
	case level < slog.LevelWarn:
		return "INFO"
	case level < slog.LevelError:
		return "WARNING"
	case level < LevelCritical:
		return "ERROR"
	}
	return "CRITICAL"
}

// ParseLevel reads a level name, in any case.
func ParseLevel(name string) (slog.Level, error) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, LevelCritical} {
		if strings.EqualFold(name, LevelName(level)) {
			return level, nil
		}
	}
	return 0, fmt.Errorf("unknown log level %q; expected DEBUG, INFO, WARNING, ERROR or CRITICAL", name)
}

// ComponentKey is the attribute that assigns a logger to a component:
//
//	log.With(logging.ComponentKey, logging.ComponentLink)
//
// Only With counts, because only then is a disabled line free of cost. The last
// one wins.
const ComponentKey = "component"

// Components whose level can be set apart. A logger without one belongs to
// ComponentServer.
const (
	ComponentServer = "server"
	ComponentCar    = "car"
	ComponentLink   = "link"
	ComponentModule = "module"
	ComponentBroker = "broker"
	ComponentHTTP   = "http"
	ComponentAdmin  = "admin"
)

// Components returns the names SetLevel accepts.
func Components() []string {
	return []string{ComponentServer, ComponentCar, ComponentLink, ComponentModule, ComponentBroker, ComponentHTTP, ComponentAdmin}
}

// componentIndex returns the index of the component in Components; unknown ones
// count as the server itself.
func componentIndex(name string) int {
	return max(0, slices.Index(Components(), name))
}

// threshold holds the lowest level each destination takes from one component.
type threshold struct {
	lowest atomic.Int64 // of both
	of     [2]atomic.Int64
}

// SetLevel sets the level of one component, or of every component when the name
// is empty, on every sink in use and until ResetLevel. It may be called at any
// time.
func (l *Logs) SetLevel(component string, level slog.Level) error {
	return l.override(component, &level)
}

// ResetLevel gives a component, or every component when the name is empty, the
// levels of the sinks again.
func (l *Logs) ResetLevel(component string) error { return l.override(component, nil) }

func (l *Logs) override(component string, level *slog.Level) error {
	names := Components()
	if component != "" && !slices.Contains(names, component) {
		return fmt.Errorf("unknown component %q; expected one of %s", component, strings.Join(names, ", "))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, name := range names {
		if component == "" || component == name {
			l.overrides[i] = level
		}
	}
	l.applyLevels()
	return nil
}

// SetSinkLevels replaces the levels the sinks were made with; overrides of
// SetLevel stay in force.
func (l *Logs) SetSinkLevels(console, file slog.Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, level := range [...]slog.Level{console, file} {
		if l.sinkLevels[i] != levelOff {
			l.sinkLevels[i] = level
		}
	}
	l.applyLevels()
}

// ComponentLevel is the lowest level that is logged anywhere of a component.
type ComponentLevel struct {
	Now        slog.Level
	Configured slog.Level // what ResetLevel gives it again
	Overridden bool       // by SetLevel
}

// Levels returns the levels of all components.
func (l *Logs) Levels() map[string]ComponentLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]ComponentLevel)
	for i, name := range Components() {
		out[name] = ComponentLevel{
			Now:        slog.Level(l.thresholds[i].lowest.Load()),
			Configured: slices.Min(l.sinkLevels[:]),
			Overridden: l.overrides[i] != nil,
		}
	}
	return out
}

// applyLevels computes the thresholds; the caller holds mu.
func (l *Logs) applyLevels() {
	for i := range l.thresholds {
		lowest := levelOff
		for k, level := range l.sinkLevels {
			if level != levelOff && l.overrides[i] != nil {
				level = *l.overrides[i]
			}
			l.thresholds[i].of[k].Store(int64(level))
			lowest = min(lowest, level)
		}
		l.thresholds[i].lowest.Store(int64(lowest))
	}
}
