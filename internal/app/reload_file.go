package app

import (
	"context"
	"errors"
	"fmt"

	"external-server/internal/app/roster"
)

// ReloadFile reads the configuration file again and puts it in force: what
// SIGHUP, the command and the admin endpoint do. A file with an error changes
// nothing; the error says where it is.
func (a *App) ReloadFile(ctx context.Context) (roster.Changes, error) {
	changes, err := a.reloadFile(ctx)
	if err != nil {
		a.log.Error("the configuration was not reloaded", "error", err)
	}
	if a.hub != nil {
		a.hub.Reloaded(changes.String(), err)
	}
	return changes, err
}

func (a *App) reloadFile(ctx context.Context) (roster.Changes, error) {
	if a.load == nil {
		return roster.Changes{}, errors.New("this server was not started from a configuration file")
	}
	cfg, warnings, err := a.load()
	if err != nil {
		return roster.Changes{}, fmt.Errorf("%w; the configuration in force stays unchanged", err)
	}
	for _, w := range warnings {
		a.log.Warn("configuration: " + w.String())
	}
	return a.Reload(ctx, cfg)
}
