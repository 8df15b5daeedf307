package main

import (
	"log/slog"

	"external-server/internal/app/sdnotify"
)

// serviceManager is what started the server: systemd, or something that does not listen.
type serviceManager struct{ log *slog.Logger }

// tell sends states. A manager that does not take them is no reason to stop.
func (m serviceManager) tell(states ...string) {
	if err := sdnotify.Send(states...); err != nil {
		m.log.Warn("the service manager could not be told", "error", err)
	}
}
