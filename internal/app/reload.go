package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"external-server/internal/app/roster"
	"external-server/internal/config"
)

// Reload puts a validated configuration in force. Everything that can fail is
// done first: new modules are loaded and the contexts of new and changed cars
// are opened; on error the old configuration stays in force and nothing has
// changed. Unchanged cars keep their sessions. Settings that cannot change while
// the server runs are an error that names them.
//
// A reload is bounded, whatever ctx says: 15 s for each start of a module or of one
// context, and 60 s and 0.1 s per car for all of them. The error says what it waited
// for. The stop of the server ends it.
func (a *App) Reload(ctx context.Context, cfg *config.Config) (roster.Changes, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reloadTimeout+time.Duration(len(cfg.Cars))*reloadCarTimeout, errStep)
	defer cancel()
	w := &waits{step: a.stepLimit}
	if err := a.reloading.enter(ctx, w); err != nil {
		return roster.Changes{}, fmt.Errorf("%s: %w", cfg.Source, err)
	}
	defer a.reloading.leave()
	begun := time.Now()
	old := a.Config()
	a.waits = w
	changes, err := a.reload(ctx, old, cfg)
	if err != nil && !errors.Is(err, errInForce) {
		return roster.Changes{}, fmt.Errorf("%s: %w; the configuration in force stays unchanged", cfg.Source, err)
	}
	a.mu.Lock()
	a.cfg = cfg
	a.mu.Unlock()
	if err != nil {
		return changes, fmt.Errorf("%s: %w", cfg.Source, err)
	}
	slowest, took := w.slowest()
	args := []any{"file", cfg.Source, "changes", changes.String()}
	if took > slowStep {
		args = append(args, "took", time.Since(begun).Round(time.Millisecond).String(),
			"waited_longest_for", slowest, "waited", took.Round(time.Millisecond).String())
	}
	a.log.Info("configuration reloaded", args...)
	return changes, nil
}

// reload prepares all parts, then changes them.
func (a *App) reload(ctx context.Context, old, fresh *config.Config) (roster.Changes, error) {
	a.waits.next("the files that the configuration names")
	if keys := needRestart(old, fresh, a.parts.keys()); len(keys) > 0 {
		return roster.Changes{}, errors.New("a restart of the server is needed to change " + strings.Join(keys, ", "))
	}
	made, err := a.parts.prepare(ctx, old, fresh)
	if err != nil {
		return roster.Changes{}, err
	}
	// Nothing below fails for a reason that lies in the configuration.
	a.waits.next("the end of the cars that were changed or removed, and of their modules")
	bound, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), applyTimeout, errStep)
	defer cancel()
	if err := made.apply(bound, false); err != nil {
		return a.cars.last, fmt.Errorf("%w: %w", errInForce, err)
	}
	return a.cars.last, nil
}

// slowStep is how long a step of a reload may take without being named in the log.
const slowStep = time.Second

// errInForce marks what went wrong after the point of no return.
var errInForce = errors.New("the new configuration is in force, but not all of it works")
