package main

import (
	"log/slog"

	"external-server/internal/sdnotify"
)

// serviceManager is who started the server: systemd, or nobody who listens.
type serviceManager struct{ log *slog.Logger }

// tell sends states. A manager that does not take them is no reason to stop.
func (m serviceManager) tell(states ...string) {
	if err := sdnotify.Send(states...); err != nil {
		m.log.Warn("the service manager could not be told", "error", err)
	}
}
